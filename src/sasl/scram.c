#include "sasl/scram.h"

#include "base/secret.h"

bool scram_attribute(struct str *rest, char *ret_name, struct str *ret_value)
{
    struct str item;
    if (rest->n == 0)
        return false;
    bool more = str_cut(rest, ',', &item);
    if (!more)
        *rest = STR_NONE;
    char letter = item.n > 0 ? ascii_lower(item.p[0]) : 0;
    if (item.n < 2 || letter < 'a' || letter > 'z' || item.p[1] != '=')
        return false;
    /* A comma announces another attribute. */
    if (more && rest->n == 0)
        return false;
    *ret_name = item.p[0];
    *ret_value = str_skip(item, 2);
    return true;
}

bool scram_extensions(struct str rest)
{
    while (rest.n > 0) {
        char name;
        struct str value;
        if (!scram_attribute(&rest, &name, &value) || value.n == 0)
            return false;
    }
    return true;
}

bool scram_nonce_ok(struct str nonce)
{
    if (nonce.n == 0 || nonce.n > SASL_NONCE_MAX)
        return false;
    for (size_t i = 0; i < nonce.n; i++)
        if (nonce.p[i] < 0x21 || nonce.p[i] > 0x7e || nonce.p[i] == ',')
            return false;
    return true;
}

bool scram_unescape(struct str escaped, char *dst, size_t dst_bytes, size_t *ret_n)
{
    size_t n = 0;
    for (size_t i = 0; i < escaped.n; i++) {
        char c = escaped.p[i];
        if (c == '=') {
            struct str code = str_skip(escaped, i);
            if (str_starts(code, STR("=2C")))
                c = ',';
            else if (!str_starts(code, STR("=3D")))
                return false;
            i += 2;
        }
        if (c == 0 || n + 1 >= dst_bytes)
            return false;
        dst[n++] = c;
    }
    dst[n] = 0;
    *ret_n = n;
    return true;
}

bool scram_escape(struct str name, struct buf *out)
{
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == ',')
            buf_add(out, STR("=2C"));
        else if (name.p[i] == '=')
            buf_add(out, STR("=3D"));
        else
            buf_add_char(out, name.p[i]);
    }
    return !out->failed;
}

struct str scram_binding_data(const struct sasl_binding *binding, struct str type)
{
    if (str_eq(type, STR("tls-server-end-point")))
        return binding->cert_hash;
    if (str_eq(type, STR("tls-exporter")))
        return binding->exporter;
    return STR_NONE;
}

bool scram_auth_message(struct buf *out, struct str first_bare, struct str server_first, struct str final_bare)
{
    buf_add(out, first_bare);
    buf_add_char(out, ',');
    buf_add(out, server_first);
    buf_add_char(out, ',');
    return buf_add(out, final_bare);
}

bool scram_mask(const unsigned char key[SASL_KEY_BYTES], struct str auth_message,
                const unsigned char other[SASL_KEY_BYTES], unsigned char ret_masked[SASL_KEY_BYTES])
{
    unsigned char signature[SASL_KEY_BYTES];
    if (!crypto_hmac(str_slice(key, SASL_KEY_BYTES), auth_message, signature))
        return false;
    for (size_t i = 0; i < SASL_KEY_BYTES; i++)
        ret_masked[i] = signature[i] ^ other[i];
    secret_wipe(signature, sizeof signature);
    return true;
}
