#include "sasl/sasl.h"

#include <stringprep.h>

#include "base/base64.h"
#include "base/secret.h"
#include "sasl/client.h"
#include "sasl/server.h"

/* Strongest first. EXTERNAL would be a row like these. */
static const struct sasl_mechanism mechanisms[] = {
    { "GSSAPI", SASL_BLOCKING | SASL_GSS, 60, &sasl_server_gssapi, &sasl_client_gssapi },
    { "GSS-SPNEGO", SASL_BLOCKING | SASL_GSS, 50, &sasl_server_gss_spnego, &sasl_client_gss_spnego },
    { "SCRAM-SHA-256-PLUS", SASL_BINDING, 40, &sasl_server_scram, &sasl_client_scram },
    { "SCRAM-SHA-256", 0, 30, &sasl_server_scram, &sasl_client_scram },
    { "NTLM", SASL_NTLM, 25, &sasl_server_ntlmssp, &sasl_client_ntlmssp },
    { "PLAIN", SASL_CLEARTEXT, 20, &sasl_server_plain, &sasl_client_plain },
    /* SMTP allows LOGIN an initial response: clients send the name in it. */
    { "LOGIN", SASL_CLEARTEXT, 10, &sasl_server_login, &sasl_client_login },
};
enum { N_MECHANISMS = sizeof mechanisms / sizeof mechanisms[0] };

const struct sasl_mechanism *sasl_mechanism_find(struct str name)
{
    for (size_t i = 0; i < N_MECHANISMS; i++)
        if (str_eq_nocase(name, str_of(mechanisms[i].name)))
            return &mechanisms[i];
    return NULL;
}

const struct sasl_mechanism *sasl_mechanism_at(size_t i)
{
    return i < N_MECHANISMS ? &mechanisms[i] : NULL;
}

bool sasl_list_has(struct str list, struct str name)
{
    while (list.n > 0) {
        struct str item;
        bool more = str_cut(&list, ' ', &item);
        if (item.n > 0 && str_eq_nocase(item, name))
            return true;
        if (!more)
            break;
    }
    return false;
}

const char *sasl_layer_kind_name(enum sasl_layer_kind kind)
{
    static const char *const names[] = {
        [SASL_LAYER_NONE] = "none",
        [SASL_LAYER_GSS_INTEGRITY] = "gss-integrity",
        [SASL_LAYER_GSS_CONFIDENTIALITY] = "gss-confidentiality",
        [SASL_LAYER_NTLM_SIGN] = "ntlm-sign",
        [SASL_LAYER_NTLM_SEAL] = "ntlm-seal",
    };
    return names[kind];
}

bool sasl_layer_is_confidential(enum sasl_layer_kind kind)
{
    return kind == SASL_LAYER_GSS_CONFIDENTIALITY || kind == SASL_LAYER_NTLM_SEAL;
}

bool sasl_nonce_text(const unsigned char octets[SASL_NONCE_BYTES], char ret_text[SASL_NONCE_TEXT + 1])
{
    struct buf text;
    buf_init(&text, SASL_NONCE_TEXT);
    bool ok = base64_encode(str_slice(octets, SASL_NONCE_BYTES), &text) &&
              str_copy(buf_str(&text), ret_text, SASL_NONCE_TEXT + 1);
    buf_done(&text);
    return ok;
}

/* SASLprep changes nothing in printable ASCII; that is nearly every name and password, and so no copy of it
 * is left behind by the library. */
static bool is_printable_ascii(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7e)
            return false;
    return true;
}

bool sasl_prep(struct str raw, size_t max, char *dst, size_t *ret_n)
{
    char text[4 * SASL_PASSWORD_MAX + 1];
    dst[0] = 0;
    *ret_n = 0;
    if (raw.n == 0)
        return false;
    if (is_printable_ascii(raw)) {
        if (raw.n > max || !str_copy(raw, dst, max + 1))
            return false;
        *ret_n = raw.n;
        return true;
    }
    /* A limit on what the library has to chew; mapping and normalization may shorten the text. */
    bool ok = raw.n <= 4 * max && str_copy(raw, text, sizeof text) &&
              stringprep(text, sizeof text, 0, stringprep_saslprep) == STRINGPREP_OK;
    if (ok) {
        struct str prepared = str_of(text);
        ok = prepared.n > 0 && prepared.n <= max && str_copy(prepared, dst, max + 1);
        *ret_n = ok ? prepared.n : 0;
    }
    secret_wipe(text, sizeof text);
    return ok;
}

bool sasl_prep_user(struct str raw, char dst[SASL_USER_MAX + 1], size_t *ret_n)
{
    if (!sasl_prep(raw, SASL_USER_MAX, dst, ret_n))
        return false;
    for (size_t i = 0; i < *ret_n; i++)
        dst[i] = ascii_lower(dst[i]);
    return true;
}
