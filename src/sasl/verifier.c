/* RFC 5802 section 3: SaltedPassword = Hi(password, salt, i); ClientKey = HMAC(SaltedPassword, "Client Key");
 * StoredKey = H(ClientKey); ServerKey = HMAC(SaltedPassword, "Server Key"). */
#include "base/secret.h"
#include "sasl/crypto.h"

int sasl_verifier_make(struct str password, struct str salt, uint32_t iterations, struct sasl_verifier *ret_verifier,
                       struct err *err)
{
    struct sasl_verifier v = { .salt_bytes = (uint32_t)salt.n, .iterations = iterations };
    unsigned char salted[SASL_KEY_BYTES], client_key[SASL_KEY_BYTES];
    if (salt.n == 0 || salt.n > SASL_SALT_MAX)
        return err_set(err, ERR_LIMIT, "a salt of %zu octets; 1 to %d are possible", salt.n, SASL_SALT_MAX);
    if (iterations < SASL_ITERATIONS_MIN || iterations > SASL_ITERATIONS_MAX)
        return err_set(err, ERR_LIMIT, "%u iterations; %d to %d are possible", iterations, SASL_ITERATIONS_MIN,
                       SASL_ITERATIONS_MAX);
    memcpy(v.salt, salt.p, salt.n);
    struct str key = str_slice(salted, sizeof salted);
    bool ok = crypto_stretch(password, salt, iterations, salted) && crypto_hmac(key, STR("Client Key"), client_key) &&
              crypto_hash(str_slice(client_key, sizeof client_key), v.stored_key) &&
              crypto_hmac(key, STR("Server Key"), v.server_key);
    if (ok)
        *ret_verifier = v;
    secret_wipe(salted, sizeof salted);
    secret_wipe(client_key, sizeof client_key);
    secret_wipe(&v, sizeof v);
    return ok ? 0 : err_set(err, ERR_AUTH, "the crypto library cannot compute a SCRAM-SHA-256 verifier");
}

int sasl_verifier_check(const struct sasl_verifier *verifier, struct str password, struct err *err)
{
    struct sasl_verifier v;
    if (verifier->salt_bytes > SASL_SALT_MAX)
        return err_set(err, ERR_CORRUPT, "a stored salt of %u octets", verifier->salt_bytes);
    int rc = sasl_verifier_make(password, str_slice(verifier->salt, verifier->salt_bytes), verifier->iterations, &v, err);
    if (rc < 0)
        return rc;
    bool right = secret_equal(str_slice(v.stored_key, sizeof v.stored_key),
                              str_slice(verifier->stored_key, sizeof verifier->stored_key));
    secret_wipe(&v, sizeof v);
    return right;
}

static bool derive(struct str secret, const char *purpose, struct str user, unsigned char ret_key[SASL_KEY_BYTES])
{
    char text[16 + SASL_USER_MAX + 1];
    int n = snprintf(text, sizeof text, "%s:%.*s", purpose, STR_ARG(user));
    return n > 0 && (size_t)n < sizeof text && crypto_hmac(secret, str_slice(text, (size_t)n), ret_key);
}

int sasl_verifier_fake(struct str secret, struct str user, struct sasl_verifier *ret_verifier, struct err *err)
{
    unsigned char salt[SASL_KEY_BYTES];
    *ret_verifier = (struct sasl_verifier){ .salt_bytes = SASL_SALT_BYTES, .iterations = SASL_ITERATIONS };
    if (!derive(secret, "salt", user, salt) || !derive(secret, "stored", user, ret_verifier->stored_key) ||
        !derive(secret, "server", user, ret_verifier->server_key))
        return err_set(err, ERR_AUTH, "the crypto library cannot compute HMAC-SHA-256");
    memcpy(ret_verifier->salt, salt, SASL_SALT_BYTES);
    return 0;
}
