#include "explain/login_words.h"

#include <stdio.h>

#include "base/clock.h"

enum { NAMES_SHOWN = 4, REPLY_BYTES = 600, MINUTE_MS = 60000 };

void words_cut(struct words_out *out, size_t n)
{
    out->n = n;
    out->p[n] = 0;
}

void words_add(struct words_out *out, struct str s)
{
    size_t room = out->size - 1 - out->n;
    if (s.n > room) {
        out->cut = true;
        for (s.n = room; s.n && ((unsigned char)s.p[s.n] & 0xc0) == 0x80; s.n--) /* not within a character */
            ;
    }
    if (s.n)
        memcpy(out->p + out->n, s.p, s.n);
    words_cut(out, out->n + s.n);
}

/* Octets of the UTF-8 character that `s` begins with (RFC 3629); 0: none that may be shown. */
static size_t character(struct str s)
{
    unsigned char c = (unsigned char)s.p[0];
    if (c < 0x80)
        return c >= 0x20 && c != 0x7f;
    size_t n = c >= 0xc2 && c <= 0xdf ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (n == 0 || s.n < n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if (((unsigned char)s.p[i] & 0xc0) != 0x80)
            return 0;
    unsigned char second = (unsigned char)s.p[1];
    bool is_overlong = (c == 0xe0 && second < 0xa0) || (c == 0xf0 && second < 0x90);
    bool is_outside = (c == 0xed && second > 0x9f) || (c == 0xf4 && second > 0x8f);
    bool is_control = c == 0xc2 && second < 0xa0; /* C1: commands to some terminals */
    return is_overlong || is_outside || is_control ? 0 : n;
}

static void add_peer(struct words_out *out, struct str s, size_t max, bool in_quotes)
{
    bool is_cut = s.n > max;
    s.n = is_cut ? max : s.n;
    while (s.n) {
        size_t n = in_quotes && s.p[0] == '\'' ? 0 : character(s);
        words_add(out, n ? str_slice(s.p, n) : STR("?"));
        s = str_skip(s, n ? n : 1);
    }
    if (is_cut)
        words_add(out, STR("..."));
}

void words_add_peer(struct words_out *out, struct str s, size_t max)
{
    add_peer(out, s, max, false);
}

static bool is_plain(struct str s, const char *also)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ascii_alnum(s.p[i]) && (s.p[i] == 0 || !strchr(also, s.p[i])))
            return false;
    return s.n > 0;
}

/* A name of a peer: in quotes when it could be taken for words of ours. */
static void add_name(struct words_out *out, struct str s)
{
    bool plain = is_plain(s, "._-@$\\/:[]=+");
    words_add(out, str_of(plain ? "" : "'"));
    add_peer(out, s, LOGIN_PART_BYTES, !plain);
    words_add(out, str_of(plain ? "" : "'"));
}

static void add_or(struct words_out *out, struct str name, const char *otherwise)
{
    if (name.n)
        add_name(out, name);
    else
        words_add(out, str_of(otherwise));
}

static void add_number(struct words_out *out, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    words_add(out, str_of(text));
}

/* " (who: what)", or nothing. */
static void add_said(struct words_out *out, const char *who, struct str what)
{
    if (what.n == 0)
        return;
    words_add(out, STR(" ("));
    words_add(out, str_of(who));
    words_add_peer(out, what, LOGIN_PART_BYTES);
    words_add(out, STR(")"));
}

/* What a list shows: NAMES_SHOWN different ones, "a, b and c", and how many more there are. */
struct name_list {
    struct str name[NAMES_SHOWN];
    size_t n, more;
};

static void list_add(struct name_list *list, struct str name)
{
    for (size_t i = 0; i < list->n; i++)
        if (str_eq_nocase(list->name[i], name))
            return;
    if (list->n < NAMES_SHOWN)
        list->name[list->n++] = name;
    else
        list->more++;
}

static void list_put(struct words_out *out, const struct name_list *list, const char *otherwise)
{
    for (size_t i = 0; i < list->n; i++) {
        bool last = i + 1 == list->n && list->more == 0;
        words_add(out, str_of(i == 0 ? "" : last ? " and " : ", "));
        add_name(out, list->name[i]);
    }
    words_add(out, str_of(list->n == 0 ? otherwise : list->more ? " and others" : ""));
}

/* Inbound. */

static void put_who(struct words_out *out, const struct words_view *v)
{
    if (v->in && v->in->user.n) {
        add_name(out, v->in->user);
        words_add(out, STR("'s client"));
    } else {
        words_add(out, STR("the client"));
        if (v->in && v->in->client.n) {
            words_add(out, STR(" "));
            add_name(out, v->in->client);
        }
    }
}

static void put_the_user(struct words_out *out, const struct words_view *v)
{
    add_or(out, v->in ? v->in->user : STR_NONE, "the user");
}

static void put_the_server(struct words_out *out, const struct words_view *v)
{
    add_or(out, v->in ? v->in->server : STR_NONE, "this server");
}

static void put_address(struct words_out *out, const struct words_view *v)
{
    add_or(out, v->in ? v->in->client : STR_NONE, "this address");
}

static void put_workstation(struct words_out *out, const struct words_view *v)
{
    add_or(out, v->in ? v->in->ntlm_workstation : STR_NONE, "an unnamed workstation");
}

static void put_target(struct words_out *out, const struct words_view *v)
{
    add_or(out, v->in ? v->in->ntlm_target : STR_NONE, "another server");
}

static void put_mechanism(struct words_out *out, const struct words_view *v)
{
    const char *name = v->in ? v->in->mechanism : v->out->mechanism;
    add_or(out, str_of(name), "this mechanism");
}

static void put_ticket(struct words_out *out, const struct words_view *v)
{
    const struct login_facts *f = v->in;
    if (!f || !f->has_ticket) {
        words_add(out, STR("a Kerberos ticket"));
        return;
    }
    words_add(out, STR("a ticket for "));
    add_or(out, f->ticket_service, "an unnamed service");
    if (f->has_ticket_kvno) {
        words_add(out, STR(" kvno "));
        add_number(out, f->ticket_kvno);
    }
    add_said(out, "", f->ticket_enctype);
}

/* A keytab's rows that the ticket is about: those of its service; all of them where none has that name, because a
 * domain's accounts have one key for all their names. */
static bool is_about(const struct login_facts *f, const struct login_key *key)
{
    struct str service = key->principal;
    service.n = str_find(service, '@');
    return f->has_ticket && str_eq_nocase(service, f->ticket_service);
}

static bool any_about(const struct login_facts *f)
{
    for (size_t i = 0; i < f->n_keys; i++)
        if (is_about(f, &f->keys[i]))
            return true;
    return false;
}

static void put_kvnos(struct words_out *out, const struct words_view *v)
{
    struct name_list list = { 0 };
    char text[NAMES_SHOWN + 1][16]; /* the last one is for what is not shown */
    const struct login_facts *f = v->in;
    bool only_about = f && any_about(f);
    for (size_t i = 0; f && i < f->n_keys; i++) {
        if (only_about && !is_about(f, &f->keys[i]))
            continue;
        snprintf(text[list.n], sizeof text[0], "%u", (unsigned)f->keys[i].kvno);
        list_add(&list, str_of(text[list.n]));
    }
    words_add(out, str_of(list.n ? "kvno " : ""));
    list_put(out, &list, "another key version");
}

static void put_enctypes(struct words_out *out, const struct words_view *v)
{
    struct name_list list = { 0 };
    const struct login_facts *f = v->in;
    bool only_about = f && any_about(f);
    for (size_t i = 0; f && i < f->n_keys; i++) {
        const struct login_key *key = &f->keys[i];
        if ((!only_about || is_about(f, key)) && (!f->has_ticket_kvno || key->kvno == f->ticket_kvno))
            list_add(&list, key->enctype);
    }
    words_add(out, str_of(list.n ? "only " : ""));
    list_put(out, &list, "other encryption types");
}

static void put_principals(struct words_out *out, const struct words_view *v)
{
    struct name_list list = { 0 };
    for (size_t i = 0; v->in && i < v->in->n_keys; i++)
        list_add(&list, v->in->keys[i].principal);
    list_put(out, &list, "other names");
}

static void put_services(struct words_out *out, const struct words_view *v)
{
    struct name_list list = { 0 };
    for (size_t i = 0; v->in && i < v->in->n_services; i++)
        list_add(&list, v->in->services[i]);
    list_put(out, &list, "its own names");
}

static void put_gss(struct words_out *out, const struct words_view *v)
{
    if (v->in)
        add_said(out, "Kerberos says: ", v->in->minor_text.n ? v->in->minor_text : v->in->major_text);
}

static void put_said(struct words_out *out, const struct words_view *v)
{
    if (v->in)
        add_said(out, "", v->in->detail);
}

/* Both. */

static void put_the_keytab(struct words_out *out, const struct words_view *v)
{
    struct str path = v->in ? v->in->keytab : v->out->keytab;
    words_add(out, str_of(path.n ? "the keytab " : "the keytab"));
    if (path.n)
        add_name(out, path);
}

static void put_the_realm(struct words_out *out, const struct words_view *v)
{
    add_or(out, v->in ? v->in->ticket_realm : v->out->realm, "the domain");
}

static void add_duration(struct words_out *out, uint64_t ms)
{
    static const struct { uint64_t ms; const char *name; } units[] = {
        { 24ULL * 60 * MINUTE_MS, " days" }, { 60ULL * MINUTE_MS, " hours" },
        { MINUTE_MS, " minutes" },           { 1000, " seconds" },
    };
    size_t i = 0;
    while (i < 3 && ms < 2 * units[i].ms)
        i++;
    add_number(out, ms / units[i].ms);
    words_add(out, str_of(units[i].name));
}

static void put_skew(struct words_out *out, const struct words_view *v)
{
    int64_t ours = v->in ? v->in->our_time_ms : v->out->our_time_ms;
    int64_t theirs = v->in ? v->in->client_time_ms : v->out->peer_time_ms;
    words_add(out, str_of(v->in ? "the client's clock" : "the other side's clock"));
    if (ours > 0 && theirs > 0) {
        words_add(out, STR(" is "));
        add_duration(out, theirs > ours ? (uint64_t)(theirs - ours) : (uint64_t)(ours - theirs));
        words_add(out, str_of(theirs > ours ? " ahead of ours" : " behind ours"));
        return;
    }
    words_add(out, STR(" and ours are too far apart"));
    if (ours > 0) {
        char time[CLOCK_TEXT_BYTES];
        clock_rfc3339(ours, time);
        words_add(out, STR(" (ours says "));
        words_add(out, str_of(time));
        words_add(out, STR(")"));
    }
}

/* Outbound. */

static struct str peer_of(const struct words_view *v)
{
    return !v->out ? STR_NONE : v->out->peer.n ? v->out->peer : v->out->announced;
}

static void put_peer(struct words_out *out, const struct words_view *v)
{
    add_or(out, peer_of(v), "the next hop");
}

static void put_the_domain(struct words_out *out, const struct words_view *v)
{
    struct str domain = v->out ? v->out->domain : STR_NONE;
    words_add(out, str_of(domain.n ? "domain " : "the domain block"));
    if (domain.n)
        add_name(out, domain);
}

static void put_offered(struct words_out *out, const struct words_view *v)
{
    struct str offered = v->out ? v->out->offered : STR_NONE;
    words_add_peer(out, offered.n ? offered : STR("nothing"), LOGIN_PART_BYTES);
}

static void put_our_principal(struct words_out *out, const struct words_view *v)
{
    add_or(out, v->out ? v->out->principal : STR_NONE, "our account");
}

static void put_the_spn(struct words_out *out, const struct words_view *v)
{
    add_or(out, v->out ? v->out->spn : STR_NONE, "its service name");
}

static void put_kdc(struct words_out *out, const struct words_view *v)
{
    if (v->out)
        add_said(out, "Kerberos says: ", v->out->kdc_text);
}

/* The whole command and the whole reply, as the old mail servers' event had them. */
static void put_exchange(struct words_out *out, const struct words_view *v)
{
    const struct login_outbound_facts *f = v->out;
    if (!f || (f->reply.n == 0 && f->reply_code == 0))
        return;
    words_add(out, STR(": it answered "));
    words_add_peer(out, f->command.n ? f->command : STR("our login"), LOGIN_PART_BYTES);
    words_add(out, STR(" with "));
    char code[16];
    snprintf(code, sizeof code, "%u", f->reply_code);
    if (f->reply_code && !str_starts(f->reply, str_of(code))) {
        words_add(out, str_of(code));
        words_add(out, str_of(f->reply.n ? " " : ""));
    }
    words_add_peer(out, f->reply, REPLY_BYTES);
}

static const struct {
    const char *name;
    void (*put)(struct words_out *, const struct words_view *);
} sentence_words[] = {
    { "who", put_who },               { "the-user", put_the_user },     { "the-server", put_the_server },
    { "address", put_address },       { "workstation", put_workstation }, { "target", put_target },
    { "mechanism", put_mechanism },   { "ticket", put_ticket },         { "kvnos", put_kvnos },
    { "enctypes", put_enctypes },     { "principals", put_principals }, { "services", put_services },
    { "gss", put_gss },               { "said", put_said },             { "the-keytab", put_the_keytab },
    { "the-realm", put_the_realm },   { "skew", put_skew },             { "peer", put_peer },
    { "the-domain", put_the_domain }, { "offered", put_offered },       { "our-principal", put_our_principal },
    { "the-spn", put_the_spn },       { "kdc", put_kdc },               { "exchange", put_exchange },
};

bool words_put_sentence(struct words_out *out, struct str name, const struct words_view *view)
{
    for (size_t i = 0; i < sizeof sentence_words / sizeof *sentence_words; i++)
        if (str_eq(str_of(sentence_words[i].name), name)) {
            sentence_words[i].put(out, view);
            return true;
        }
    return false;
}
