/* The published vectors of MS-NLMP section 4.2: NTLMv1, NTLMv1 with extended session security, NTLMv2, with the messages,
 * keys, signatures and sealed texts of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sasl/ntlm_message.h"
#include "sasl/ntlm_seal.h"
#include "sasl/ntlm_text.h"

struct octets {
    unsigned char p[512];
    size_t n;
};

static struct octets hex(const char *text)
{
    struct octets o = { .n = 0 };
    for (; *text; text++) {
        if (*text == ' ')
            continue;
        unsigned v;
        assert_int_equal(sscanf(text, "%2x", &v), 1);
        o.p[o.n++] = (unsigned char)v;
        text++;
    }
    return o;
}

static void assert_hex(const void *got, size_t n, const char *want)
{
    struct octets o = hex(want);
    assert_int_equal(n, o.n);
    assert_memory_equal(got, o.p, n);
}

static struct str view(const struct octets *o)
{
    return str_slice(o->p, o->n);
}

#define SERVER_CHALLENGE STR("\x01\x23\x45\x67\x89\xab\xcd\xef")
#define CLIENT_CHALLENGE STR("\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa")
#define PLAINTEXT STR("P\0l\0a\0i\0n\0t\0e\0x\0t\0")
#define FLAGS_V1 0xe2028233u
#define FLAGS_V1_ESS 0x820a8233u
#define FLAGS_V2 0xe28a8233u

/* What the three ways of section 4.2 have in common: from a session base key to an encrypted session key. */
static const struct {
    unsigned version;
    uint32_t flags;
    const char *lm_response, *nt_response; /* of version 2: the proof */
    const char *base_key, *exchange_key, *encrypted_key;
} ways[] = {
    { 1, FLAGS_V1, "98def7b87f88aa5dafe2df779688a172def11c7d5ccdef13", "67c43011f30298a2ad35ece64f16331c44bdbed927841f94",
      "d87262b0cde4b1cb7499becccdf10784", "d87262b0cde4b1cb7499becccdf10784", "518822b1b3f350c8958682ecbb3e3cb7" },
    { 1, FLAGS_V1_ESS, "aaaaaaaaaaaaaaaa00000000000000000000000000000000",
      "7537f803ae367128ca458204bde7caf81e97ed2683267232", "d87262b0cde4b1cb7499becccdf10784",
      "eb93429a8bd952f8b89c55b87f475edc", NULL },
    { 2, FLAGS_V2, "86c35097ac9cec102554764a57cccc19aaaaaaaaaaaaaaaa", "68cd0ab851e51c96aabc927bebef6a1c",
      "8de40ccadbc14a82f15cb0ad0de95ca3", "8de40ccadbc14a82f15cb0ad0de95ca3", "c5dad2544fc9799094ce1ce90bc9d03e" },
};

static const char v2_blob[] = "0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000 02000c00 44006f006d00610069006e00"
                              "01000c00 530065007200760065007200 00000000 00000000";

static void responses_and_keys(void **state)
{
    unsigned char nt_hash[NTLM_HASH_BYTES], v2_key[NTLM_HASH_BYTES], key[NTLM_HASH_BYTES], exported[NTLM_HASH_BYTES], out[24];
    assert_true(ntlm_crypto_nt_hash(STR("Password"), nt_hash));
    assert_hex(nt_hash, 16, "a4f49c406510bdcab6824ee7c30fd852");
    assert_true(ntlm_crypto_ntowf2(nt_hash, STR("User"), STR("Domain"), v2_key));
    assert_hex(v2_key, 16, "0c868a403bfd7a93a3001ef22ef02e3f");
    assert_true(ntlm_crypto_response1(nt_hash, SERVER_CHALLENGE, out));
    assert_hex(out, 24, ways[0].nt_response);
    struct octets blob = hex(v2_blob);
    assert_true(ntlm_crypto_proof2(v2_key, SERVER_CHALLENGE, view(&blob), out));
    assert_hex(out, 16, ways[2].nt_response);
    /* The LMv2 response is made with the same key over the client's challenge alone. */
    assert_true(ntlm_crypto_hmac(str_slice(v2_key, 16), SERVER_CHALLENGE, CLIENT_CHALLENGE, STR_NONE, out));
    memset(out + 16, 0xaa, 8);
    assert_hex(out, 24, ways[2].lm_response);
    memset(exported, 0x55, sizeof exported);
    for (size_t i = 0; i < 3; i++) {
        struct octets base = hex(ways[i].base_key), lm = hex(ways[i].lm_response);
        assert_true(ntlm_crypto_exchange_key(ways[i].version, ways[i].flags, base.p, SERVER_CHALLENGE, view(&lm), key));
        assert_hex(key, 16, ways[i].exchange_key);
        if (!ways[i].encrypted_key)
            continue;
        assert_true(ntlm_crypto_rc4_once(str_slice(key, 16), str_slice(exported, 16), out));
        assert_hex(out, 16, ways[i].encrypted_key);
    }
}

static void verifies_each_way(void **state)
{
    unsigned char nt_hash[NTLM_HASH_BYTES], key[NTLM_HASH_BYTES], mixed[16], both[16];
    assert_true(ntlm_crypto_nt_hash(STR("Password"), nt_hash));
    memcpy(both, SERVER_CHALLENGE.p, 8);
    memcpy(both + 8, CLIENT_CHALLENGE.p, 8);
    assert_true(ntlm_crypto_md5(str_slice(both, 16), mixed));
    for (size_t i = 0; i < 3; i++) {
        struct octets response = hex(ways[i].nt_response), blob = hex(v2_blob);
        if (i == 2) {
            memcpy(response.p + response.n, blob.p, blob.n);
            response.n += blob.n;
        }
        struct ntlm_proof proof = { .user = STR("User"), .domain = STR("Domain"), .nt_response = view(&response),
                                    .server_challenge = i == 1 ? str_slice(mixed, 8) : SERVER_CHALLENGE,
                                    .version = ways[i].version };
        assert_int_equal(ntlm_crypto_check(&proof, nt_hash, key, NULL), 1);
        assert_hex(key, 16, ways[i].base_key);
        proof.user = STR("uSER"); /* the user's case does not matter, to version 1 nothing of the name does */
        assert_int_equal(ntlm_crypto_check(&proof, nt_hash, key, NULL), 1);
        response.p[3] ^= 1;
        assert_int_equal(ntlm_crypto_check(&proof, nt_hash, key, NULL), 0);
        response.p[3] ^= 1;
        nt_hash[0] ^= 1;
        assert_int_equal(ntlm_crypto_check(&proof, nt_hash, key, NULL), 0);
        nt_hash[0] ^= 1;
    }
}

/* GSS_WrapEx of "Plaintext" by the client, the first message, and the keys for it. */
static const struct {
    uint32_t flags;
    const char *session_key, *sign_key, *seal_key, *sealed, *signature;
} seals[] = {
    { FLAGS_V1_ESS, "eb93429a8bd952f8b89c55b87f475edc", "60e799be5c72fc92922ae8ebe961fb8d",
      "04dd7f014d8504d265a25cc86a3a7c06", "a02372f6530273f3aa1eb90190ce5200c99d", "01000000 ff2aeb52f681793a 00000000" },
    { FLAGS_V2, "55555555555555555555555555555555", "4788dc861b4782f35d43fd98fe1a2d39",
      "59f600973cc4960a25480a7c196e4c58", "54e50165bf1936dc996020c1811b0f06fb5f", "01000000 7fb38ec5c55d4976 00000000" },
};

static void signs_and_seals(void **state)
{
    for (size_t i = 0; i < 2; i++) {
        struct octets key = hex(seals[i].session_key);
        struct ntlm_seal seal = { .flags = seals[i].flags & NTLM_KEY_EXCH };
        struct buf token;
        buf_init(&token, 1000);
        assert_true(ntlm_seal_keys(&seal.send, key.p, seals[i].flags, true));
        assert_hex(seal.send.sign_key, 16, seals[i].sign_key);
        assert_hex(seal.send.seal_key, 16, seals[i].seal_key);
        assert_true(ntlm_seal_wrap(&seal, true, PLAINTEXT, &token));
        assert_int_equal(token.n, 16 + PLAINTEXT.n);
        assert_hex(token.p, 16, seals[i].signature);
        assert_hex(token.p + 16, PLAINTEXT.n, seals[i].sealed);
        buf_done(&token);
        ntlm_seal_done(&seal);
    }
}

/* Section 4.2.2.4 seals without extended session security: its RC4 is ours, its checksum (CRC-32) is refused. */
static void sealing_without_extended_security_is_refused(void **state)
{
    unsigned char key[NTLM_HASH_BYTES], out[18];
    struct ntlm_seal seal;
    memset(key, 0x55, sizeof key);
    assert_true(ntlm_crypto_rc4_once(str_slice(key, 16), PLAINTEXT, out));
    assert_hex(out, 18, "56fe04d861f9319af0d7238a2e3b4d457fb8");
    assert_false(ntlm_seal_init(&seal, key, FLAGS_V1, true));
    assert_false(ntlm_seal_init(&seal, key, FLAGS_V1_ESS, true)); /* 56 bits */
    assert_true(ntlm_seal_init(&seal, key, FLAGS_V2, true));
    ntlm_seal_done(&seal);
}

static const char challenge_v1[] = "4e544c4d53535000 02000000 0c000c0038000000 338202e2 0123456789abcdef 0000000000000000"
                                   "0000000000000000 060070170000000f 530065007200760065007200";
static const char challenge_v2[] = "4e544c4d53535000 02000000 0c000c0038000000 33828ae2 0123456789abcdef 0000000000000000"
                                   "2400240044000000 060070170000000f 530065007200760065007200"
                                   "02000c0044006f006d00610069006e00 01000c00530065007200760065007200 00000000";
static const char authenticate_v1[] =
    "4e544c4d53535000 03000000 180018006c000000 1800180084000000 0c000c0048000000 0800080054000000 100010005c000000"
    "100010009c000000 358280e2 0501280a0000000f 44006f006d00610069006e00 5500730065007200 43004f004d0050005500540045005200"
    "98def7b87f88aa5dafe2df779688a172def11c7d5ccdef13 67c43011f30298a2ad35ece64f16331c44bdbed927841f94"
    "518822b1b3f350c8958682ecbb3e3cb7";

static void reads_the_messages(void **state)
{
    struct octets one = hex(challenge_v1), two = hex(challenge_v2), three = hex(authenticate_v1);
    struct ntlm_challenge c;
    struct ntlm_avs avs;
    char text[64];
    struct str got;
    assert_true(ntlm_message_read_challenge(view(&one), &c));
    assert_int_equal(c.flags, FLAGS_V1);
    assert_int_equal(c.target_info.n, 0);
    assert_true(ntlm_message_read_challenge(view(&two), &c));
    assert_int_equal(c.flags, FLAGS_V2);
    assert_memory_equal(c.challenge.p, SERVER_CHALLENGE.p, 8);
    assert_true(ntlm_text_decode(c.target_name, true, text, sizeof text, &got));
    assert_string_equal(text, "Server");
    assert_true(ntlm_message_read_avs(c.target_info, &avs));
    assert_true(ntlm_text_decode(avs.value[NTLM_AV_NETBIOS_DOMAIN], true, text, sizeof text, &got));
    assert_string_equal(text, "Domain");
    assert_false(avs.has[NTLM_AV_TIMESTAMP]);

    struct ntlm_authenticate a;
    assert_true(ntlm_message_read_authenticate(view(&three), &a));
    assert_int_equal(a.flags, 0xe2808235u);
    assert_int_equal(a.header_bytes, 72);
    assert_hex(a.nt_response.p, a.nt_response.n, ways[0].nt_response);
    assert_hex(a.lm_response.p, a.lm_response.n, ways[0].lm_response);
    assert_hex(a.session_key.p, a.session_key.n, ways[0].encrypted_key);
    assert_true(ntlm_text_decode(a.workstation, true, text, sizeof text, &got));
    assert_string_equal(text, "COMPUTER");
}

/* The challenge of section 4.2.4.3 but for its Version. */
static void writes_the_challenge(void **state)
{
    struct octets want = hex(challenge_v2), info = hex("02000c0044006f006d00610069006e00 01000c00530065007200760065007200"
                                                       "00000000"), name = hex("530065007200760065007200");
    struct ntlm_challenge c = { .flags = FLAGS_V2, .target_name = view(&name), .target_info = view(&info),
                                .challenge = SERVER_CHALLENGE };
    struct buf out;
    buf_init(&out, 1000);
    ntlm_message_write_challenge(&out, &c);
    assert_int_equal(out.n, want.n);
    assert_memory_equal(out.p, want.p, 48);
    assert_memory_equal(out.p + 56, want.p + 56, want.n - 56);
    buf_done(&out);
}

static int load(void **state)
{
    return ntlm_crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(responses_and_keys), cmocka_unit_test(verifies_each_way), cmocka_unit_test(signs_and_seals),
        cmocka_unit_test(sealing_without_extended_security_is_refused), cmocka_unit_test(reads_the_messages),
        cmocka_unit_test(writes_the_challenge),
    };
    return cmocka_run_group_tests(tests, load, NULL);
}
