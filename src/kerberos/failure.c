#include "kerberos/failure.h"

#include <stdarg.h>
#include <stdio.h>

#include "kerberos/private.h"

static const struct {
    const char *word;
    bool temporary;
} causes[KRB_CAUSES] = {
    [KRB_CAUSE_NONE] = { "", false },
    [KRB_CAUSE_KEYTAB_MISSING] = { "keytab-missing", true },
    [KRB_CAUSE_KEYTAB_UNREADABLE] = { "keytab-unreadable", true },
    [KRB_CAUSE_KEYTAB_EMPTY] = { "keytab-empty", true },
    [KRB_CAUSE_KVNO_OLD] = { "kvno-old", true },
    [KRB_CAUSE_KVNO_NEW] = { "kvno-new", true },
    [KRB_CAUSE_WRONG_KEY] = { "wrong-key", true },
    [KRB_CAUSE_ENCTYPE_MISSING] = { "enctype-missing", true },
    [KRB_CAUSE_NOT_OUR_SERVICE] = { "not-our-service", false },
    [KRB_CAUSE_SERVICE_NOT_ALLOWED] = { "service-not-allowed", false },
    [KRB_CAUSE_CLOCK_SKEW] = { "clock-skew", true },
    [KRB_CAUSE_TICKET_NOT_YET_VALID] = { "ticket-not-yet-valid", true },
    [KRB_CAUSE_TICKET_EXPIRED] = { "ticket-expired", false },
    [KRB_CAUSE_REPLAY] = { "replay", false },
    [KRB_CAUSE_BAD_BINDINGS] = { "bad-bindings", false },
    [KRB_CAUSE_BINDINGS_MISSING] = { "bindings-missing", false },
    [KRB_CAUSE_NO_KDC] = { "no-kdc", true },
    [KRB_CAUSE_KDC_SILENT] = { "kdc-silent", true },
    [KRB_CAUSE_SPN_UNKNOWN] = { "spn-unknown", true },
    [KRB_CAUSE_PREAUTH_FAILED] = { "preauth-failed", false },
    [KRB_CAUSE_CLIENT_UNKNOWN] = { "client-unknown", false },
    [KRB_CAUSE_CLIENT_REVOKED] = { "client-revoked", false },
    [KRB_CAUSE_PASSWORD_EXPIRED] = { "password-expired", false },
    [KRB_CAUSE_NO_CREDENTIALS] = { "no-credentials", false },
    [KRB_CAUSE_ENCTYPE_UNSUPPORTED] = { "enctype-unsupported", true },
    [KRB_CAUSE_REALM_UNKNOWN] = { "realm-unknown", true },
    [KRB_CAUSE_DEFECTIVE_TOKEN] = { "defective-token", false },
    [KRB_CAUSE_INTERNAL] = { "kerberos-internal", true },
};

const char *krb_cause_word(enum krb_cause cause)
{
    return (unsigned)cause < KRB_CAUSES ? causes[cause].word : causes[KRB_CAUSE_INTERNAL].word;
}

enum krb_cause krb_cause_of_word(struct str word)
{
    for (unsigned i = 0; i < KRB_CAUSES; i++)
        if (str_eq(word, str_of(causes[i].word)))
            return (enum krb_cause)i;
    return KRB_CAUSE_NONE;
}

bool krb_cause_temporary(enum krb_cause cause)
{
    return (unsigned)cause < KRB_CAUSES && causes[cause].temporary;
}

/* What the text alone tells; first match wins. In the acceptor's sentences the ticket's own service name, which the
 * client chose, comes first, so those are known by how they begin and end. */
static const struct {
    const char *begin, *middle, *end;
    enum krb_cause cause;
} sentences[] = {
    { "Request ticket server ", NULL, "; keytab is likely out of date", KRB_CAUSE_KVNO_OLD },
    { "Request ticket server ", NULL, "; ticket is likely out of date", KRB_CAUSE_KVNO_NEW },
    { "Request ticket server ", NULL, " found in keytab but cannot decrypt ticket", KRB_CAUSE_WRONG_KEY },
    { "Request ticket server ", " found in keytab but not with enctype ", "", KRB_CAUSE_ENCTYPE_MISSING },
    { "Request ticket server ", " not found in keytab (ticket kvno ", ")", KRB_CAUSE_NOT_OUR_SERVICE },
    { "Request ticket server ", " found in keytab but does not match server principal ", "",
      KRB_CAUSE_NOT_OUR_SERVICE },
    { "Cannot decrypt ticket for ", " using keytab key for ", "", KRB_CAUSE_WRONG_KEY },
    { "Keytab ", NULL, " is nonexistent or empty", KRB_CAUSE_KEYTAB_EMPTY },
    { "No keys in keytab", NULL, "", KRB_CAUSE_KEYTAB_EMPTY },
    { "Keytab contains no suitable keys for ", NULL, "", KRB_CAUSE_KEYTAB_EMPTY },
    { "No key table entry found matching ", NULL, "", KRB_CAUSE_KEYTAB_EMPTY },
    { "Key table file '", NULL, "' not found", KRB_CAUSE_KEYTAB_MISSING },
    { "Unsupported key table format version number", NULL, "", KRB_CAUSE_KEYTAB_UNREADABLE },
    { "Server krbtgt/", NULL, " not found in Kerberos database", KRB_CAUSE_REALM_UNKNOWN },
    { "Server ", NULL, " not found in Kerberos database", KRB_CAUSE_SPN_UNKNOWN },
    { "Client ", NULL, " not found in Kerberos database", KRB_CAUSE_CLIENT_UNKNOWN },
    { "Cannot contact any KDC for ", NULL, "", KRB_CAUSE_KDC_SILENT },
    { "Cannot find KDC for ", NULL, "", KRB_CAUSE_NO_KDC },
    { "Cannot resolve network address for KDC", NULL, "", KRB_CAUSE_NO_KDC },
    { "Clock skew too great", NULL, "", KRB_CAUSE_CLOCK_SKEW },
    { "No Kerberos credentials available", NULL, "", KRB_CAUSE_NO_CREDENTIALS },
    { "Encryption type ", NULL, " not permitted", KRB_CAUSE_ENCTYPE_UNSUPPORTED },
    { "ASN.1 ", NULL, "", KRB_CAUSE_DEFECTIVE_TOKEN },
    { "Token header is malformed or corrupt", NULL, "", KRB_CAUSE_DEFECTIVE_TOKEN },
    { "Invalid token was supplied", NULL, "", KRB_CAUSE_DEFECTIVE_TOKEN },
};

/* What a code tells, or its text where SPNEGO hides the code. */
static const struct {
    long code;
    enum krb_cause cause;
    const char *text;
} codes[] = {
    { KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN, KRB_CAUSE_CLIENT_UNKNOWN, "Client not found in Kerberos database" },
    { KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN, KRB_CAUSE_SPN_UNKNOWN, "Server not found in Kerberos database" },
    { KRB5KDC_ERR_PRINCIPAL_NOT_UNIQUE, KRB_CAUSE_SPN_UNKNOWN, "Principal has multiple entries in Kerberos database" },
    { KRB5KDC_ERR_NAME_EXP, KRB_CAUSE_CLIENT_REVOKED, "Client's entry in database has expired" },
    { KRB5KDC_ERR_CLIENT_REVOKED, KRB_CAUSE_CLIENT_REVOKED, "Client's credentials have been revoked" },
    { KRB5KDC_ERR_KEY_EXP, KRB_CAUSE_PASSWORD_EXPIRED, "Password has expired" },
    { KRB5KDC_ERR_PREAUTH_FAILED, KRB_CAUSE_PREAUTH_FAILED, "Preauthentication failed" },
    { KRB5_PREAUTH_FAILED, KRB_CAUSE_PREAUTH_FAILED, "Generic preauthentication failure" },
    { KRB5_LIBOS_BADPWDMATCH, KRB_CAUSE_PREAUTH_FAILED, "Password mismatch" },
    { KRB5KDC_ERR_ETYPE_NOSUPP, KRB_CAUSE_ENCTYPE_UNSUPPORTED, "KDC has no support for encryption type" },
    { KRB5_CC_NOT_KTYPE, KRB_CAUSE_ENCTYPE_UNSUPPORTED, "No credentials found with supported encryption types" },
    { KRB5_CONFIG_ETYPE_NOSUPP, KRB_CAUSE_ENCTYPE_UNSUPPORTED, "No supported encryption types (config file error?)" },
    { KRB5_NOPERM_ETYPE, KRB_CAUSE_ENCTYPE_UNSUPPORTED, "Encryption type not permitted" },
    { KRB5_PROG_ETYPE_NOSUPP, KRB_CAUSE_ENCTYPE_UNSUPPORTED, "Program lacks support for encryption type" },
    { KRB5_BAD_ENCTYPE, KRB_CAUSE_ENCTYPE_UNSUPPORTED, "Bad encryption type" },
    { KRB5KRB_AP_ERR_BAD_INTEGRITY, KRB_CAUSE_WRONG_KEY, "Decrypt integrity check failed" },
    { KRB5KRB_AP_ERR_MODIFIED, KRB_CAUSE_WRONG_KEY, "Message stream modified" },
    { KRB5KRB_AP_ERR_TKT_EXPIRED, KRB_CAUSE_TICKET_EXPIRED, "Ticket expired" },
    { KRB5KRB_AP_ERR_TKT_NYV, KRB_CAUSE_TICKET_NOT_YET_VALID, "Ticket not yet valid" },
    { KRB5KRB_AP_ERR_REPEAT, KRB_CAUSE_REPLAY, "Request is a replay" },
    { KRB5KRB_AP_ERR_NOT_US, KRB_CAUSE_NOT_OUR_SERVICE, "The ticket isn't for us" },
    { KRB5KRB_AP_WRONG_PRINC, KRB_CAUSE_NOT_OUR_SERVICE, "Wrong principal in request" },
    { KRB5KRB_AP_ERR_SKEW, KRB_CAUSE_CLOCK_SKEW, "Clock skew too great" },
    { KRB5_KDCREP_SKEW, KRB_CAUSE_CLOCK_SKEW, "Clock skew too great in KDC reply" },
    { KRB5KRB_AP_ERR_BADKEYVER, KRB_CAUSE_KVNO_OLD, "Key version is not available" },
    { KRB5_KT_KVNONOTFOUND, KRB_CAUSE_KVNO_OLD, "Key version number for principal in key table is incorrect" },
    { KRB5KRB_AP_ERR_NOKEY, KRB_CAUSE_NOT_OUR_SERVICE, "Service key not available" },
    { KRB5_REALM_UNKNOWN, KRB_CAUSE_NO_KDC, "Cannot find KDC for requested realm" },
    { KRB5_REALM_CANT_RESOLVE, KRB_CAUSE_NO_KDC, "Cannot resolve network address for KDC in requested realm" },
    { KRB5_KDC_UNREACH, KRB_CAUSE_KDC_SILENT, "Cannot contact any KDC for requested realm" },
    { KRB5KDC_ERR_SVC_UNAVAILABLE, KRB_CAUSE_KDC_SILENT,
      "A service is not available that is required to process the request" },
    { KRB5KDC_ERR_WRONG_REALM, KRB_CAUSE_REALM_UNKNOWN, "Realm not local to KDC" },
    { KRB5_CONFIG_NODEFREALM, KRB_CAUSE_REALM_UNKNOWN, "Configuration file does not specify default realm" },
    { KRB5_FCC_NOFILE, KRB_CAUSE_NO_CREDENTIALS, "No credentials cache found" },
    { KRB5_CC_NOTFOUND, KRB_CAUSE_NO_CREDENTIALS, "Matching credential not found" },
    { KRB5_KT_NOTFOUND, KRB_CAUSE_KEYTAB_EMPTY, "Key table entry not found" },
    { KRB5_KEYTAB_BADVNO, KRB_CAUSE_KEYTAB_UNREADABLE, "Unsupported key table format version number" },
    { KRB5_KT_FORMAT, KRB_CAUSE_KEYTAB_UNREADABLE, "Bad format in keytab" },
    { KRB5KRB_AP_ERR_MSG_TYPE, KRB_CAUSE_DEFECTIVE_TOKEN, "Invalid message type" },
    { KRB5KRB_AP_ERR_BADVERSION, KRB_CAUSE_DEFECTIVE_TOKEN, "Protocol version mismatch" },
};

static bool sentence_fits(size_t i, struct str text)
{
    struct str begin = str_of(sentences[i].begin), end = str_of(sentences[i].end);
    if (text.n < begin.n + end.n || !str_starts_nocase(text, begin) || !str_ends_nocase(text, end))
        return false;
    return !sentences[i].middle || memmem(text.p, text.n, sentences[i].middle, strlen(sentences[i].middle)) != NULL;
}

/* RFC 2744 section 3.9.1: the routine's error stands in bits 16 to 23. */
static enum krb_cause cause_of_major(enum krb_side side, uint32_t major)
{
    switch (major & 0x00ff0000u) {
    case GSS_S_BAD_BINDINGS:
        return KRB_CAUSE_BAD_BINDINGS;
    case GSS_S_DEFECTIVE_TOKEN:
    case GSS_S_BAD_SIG:
    case GSS_S_BAD_MECH:
        return KRB_CAUSE_DEFECTIVE_TOKEN;
    case GSS_S_CREDENTIALS_EXPIRED:
    case GSS_S_CONTEXT_EXPIRED:
        return KRB_CAUSE_TICKET_EXPIRED;
    case GSS_S_NO_CRED: /* an acceptor's credential is there: the token is of a mechanism that it does not have */
        return side == KRB_ACCEPTOR ? KRB_CAUSE_DEFECTIVE_TOKEN : KRB_CAUSE_NO_CREDENTIALS;
    default:
        return KRB_CAUSE_INTERNAL;
    }
}

/* The library keeps one text a code and thread. An initiator that hears a bare code from its peer is shown what the
 * last acceptor on the thread had to say about its own keytab: the code is right, the sentence is another login's. */
static bool is_stale(enum krb_side side, struct str text)
{
    return side == KRB_INITIATOR && (str_starts(text, STR("Request ticket server ")) ||
                                     str_starts(text, STR("Cannot decrypt ticket for ")));
}

static enum krb_cause heard_from_peer(enum krb_cause cause)
{
    return cause == KRB_CAUSE_KVNO_NEW || cause == KRB_CAUSE_ENCTYPE_MISSING ? KRB_CAUSE_KVNO_OLD : cause;
}

enum krb_cause krb_failure_decide(enum krb_side side, uint32_t major, uint32_t minor, struct str text)
{
    if ((major & 0x00ff0000u) == GSS_S_BAD_BINDINGS)
        return KRB_CAUSE_BAD_BINDINGS;
    for (size_t i = 0; i < sizeof sentences / sizeof *sentences; i++)
        if (sentence_fits(i, text))
            return is_stale(side, text) ? heard_from_peer(sentences[i].cause) : sentences[i].cause;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (minor == (uint32_t)codes[i].code || str_eq_nocase(text, str_of(codes[i].text)))
            return codes[i].code == KRB5KRB_AP_ERR_MODIFIED && side == KRB_ACCEPTOR ? KRB_CAUSE_DEFECTIVE_TOKEN
                                                                                    : codes[i].cause;
    /* What krb5 says of a token that ends too early. */
    if (side == KRB_ACCEPTOR && (minor == 0 || str_eq(text, STR("Success"))) &&
        (major & 0x00ff0000u) == GSS_S_FAILURE)
        return KRB_CAUSE_DEFECTIVE_TOKEN;
    return cause_of_major(side, major);
}

static const char *text_of_cause(enum krb_cause cause)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].cause == cause)
            return codes[i].text;
    return krb_cause_word(cause);
}

/* Logs and terminals get no octet that the peer could have slipped into a name. */
static void copy_printable(struct str text, char *dst, size_t dst_bytes)
{
    size_t n = text.n < dst_bytes - 1 ? text.n : dst_bytes - 1;
    for (size_t i = 0; i < n; i++)
        dst[i] = text.p[i] >= 0x20 && text.p[i] <= 0x7e ? text.p[i] : '?';
    dst[n] = 0;
}

void krb_failure_set(struct krb_failure *ret_failure, enum krb_cause cause, const char *fmt, ...)
{
    char text[sizeof ret_failure->minor_text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    *ret_failure = (struct krb_failure){ .cause = cause };
    copy_printable(str_of(text), ret_failure->minor_text, sizeof ret_failure->minor_text);
}

void krb_failure_gss(struct krb_failure *ret_failure, enum krb_side side, OM_uint32 major, OM_uint32 minor,
                     gss_OID mech)
{
    const size_t text_bytes = sizeof ret_failure->minor_text;
    OM_uint32 ignored, more = 0;
    gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
    *ret_failure = (struct krb_failure){ .major = major, .minor = minor };
    if (!GSS_ERROR(gss_display_status(&ignored, major, GSS_C_GSS_CODE, GSS_C_NO_OID, &more, &text)))
        copy_printable(str_slice(text.value, text.length), ret_failure->major_text, sizeof ret_failure->major_text);
    gss_release_buffer(&ignored, &text);
    more = 0;
    text = (gss_buffer_desc)GSS_C_EMPTY_BUFFER;
    if (!GSS_ERROR(gss_display_status(&ignored, minor, GSS_C_MECH_CODE, mech, &more, &text)))
        copy_printable(str_slice(text.value, text.length), ret_failure->minor_text, sizeof ret_failure->minor_text);
    ret_failure->cause = krb_failure_decide(side, major, minor, str_slice(text.value, text.length));
    if (is_stale(side, str_slice(text.value, text.length)))
        copy_printable(str_of(text_of_cause(ret_failure->cause)), ret_failure->minor_text, text_bytes);
    else if (str_eq(str_slice(text.value, text.length), STR("Success")))
        copy_printable(STR("the token is cut off or malformed"), ret_failure->minor_text, text_bytes);
    gss_release_buffer(&ignored, &text);
}

void krb_failure_krb5(struct krb_failure *ret_failure, enum krb_side side, krb5_context krb5, krb5_error_code code)
{
    const char *text = krb5_get_error_message(krb5, code);
    *ret_failure = (struct krb_failure){ .major = GSS_S_FAILURE, .minor = (uint32_t)code };
    copy_printable(str_of(text), ret_failure->minor_text, sizeof ret_failure->minor_text);
    ret_failure->cause = krb_failure_decide(side, GSS_S_FAILURE, (uint32_t)code, str_of(text));
    krb5_free_error_message(krb5, text);
}
