/* Plays a transcript (see README) to the server machine, whole, octet by octet and cut at every place. */
#include "base/buf.h"
#include "smtp/server.h"

#include <stdio.h>

enum { MAX_BYTES = 4 << 20, PHASES = 8 };

struct script {
    struct smtp_server_limits limits;
    struct smtp_server_policy policy, policy_tls;
    struct buf input[PHASES]; /* what the client sends, cut where TLS starts */
    size_t n_phases;
    struct buf replies, messages, aborts; /* expected, one a line */
    bool closed, refuse_data, refuse_commit, refuse_tls, shutdown_after_greeting;
};

struct run {
    const struct script *script;
    struct smtp_server *s;
    struct buf replies, message, messages, aborts;
    bool closed, handshake, login_name_seen;
    const char *failure;
};

static void add_escaped(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '\r')
            buf_add_c(out, "\\r");
        else if (c == '\n')
            buf_add_c(out, "\\n");
        else if (c == '\t')
            buf_add_c(out, "\\t");
        else if (c == '\\')
            buf_add_c(out, "\\\\");
        else if (c < 32 || c > 126)
            buf_addf(out, "\\x%02x", c);
        else
            buf_add_char(out, (char)c);
    }
}

static unsigned hex(char c)
{
    return ascii_digit(c) ? (unsigned)(c - '0') : (unsigned)(ascii_lower(c) - 'a' + 10);
}

static void add_unescaped(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c != '\\' || i + 1 == s.n) {
            buf_add_char(out, c);
            continue;
        }
        c = s.p[++i];
        if (c == 'x' && i + 2 < s.n) {
            buf_add_char(out, (char)(hex(s.p[i + 1]) * 16 + hex(s.p[i + 2])));
            i += 2;
        } else {
            buf_add_char(out, c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : c == '0' ? 0 : c);
        }
    }
}

static bool set_limit(struct script *sc, struct str name, struct str value)
{
    uint64_t v;
    if (!str_to_u64(value, UINT32_MAX, &v))
        return false;
    struct smtp_server_limits *l = &sc->limits;
    if (str_eq(name, STR("max_recipients")))
        l->max_recipients = (unsigned)v;
    else if (str_eq(name, STR("max_errors")))
        l->max_errors = (unsigned)v;
    else if (str_eq(name, STR("max_commands")))
        l->max_commands = (unsigned)v;
    else if (str_eq(name, STR("max_auth_failures")))
        l->max_auth_failures = (unsigned)v;
    else if (str_eq(name, STR("max_message_bytes")))
        l->max_message_bytes = v;
    else if (str_eq(name, STR("max_swallow_bytes")))
        l->max_swallow_bytes = v;
    else if (str_eq(name, STR("text_line_max_bytes")))
        l->text_line_max_bytes = (size_t)v;
    else if (str_eq(name, STR("auth_line_max_bytes")))
        l->auth_line_max_bytes = (size_t)v;
    else if (str_eq(name, STR("line_max_bytes")))
        l->line_max_bytes = (size_t)v;
    else if (str_eq(name, STR("line_swallow_max_bytes")))
        l->line_swallow_max_bytes = (size_t)v;
    else
        return false;
    return true;
}

/* Strings in the policy point into the file's text, which outlives the script. */
static bool set_option(struct script *sc, struct str line)
{
    struct str word;
    str_cut(&line, ' ', &word);
    struct smtp_server_policy *p = &sc->policy;
    if (str_eq(word, STR("@starttls")))
        p->starttls_available = true;
    else if (str_eq(word, STR("@require_tls")))
        p->require_tls = true;
    else if (str_eq(word, STR("@require_auth")))
        p->require_auth = true;
    else if (str_eq(word, STR("@deny")))
        p->deny = true;
    else if (str_eq(word, STR("@repair")))
        p->line_ends_repair = true;
    else if (str_eq(word, STR("@mechanisms")))
        p->mechanisms = line;
    else if (str_eq(word, STR("@mechanisms_tls")))
        p->mechanisms_tls = line;
    else if (str_eq(word, STR("@mechanisms_known")))
        p->mechanisms_known = line;
    else if (str_eq(word, STR("@exps_mechanisms")))
        p->exps_mechanisms = line;
    else if (str_eq(word, STR("@login_line")))
        p->login_line = true;
    else if (str_eq(word, STR("@refuse_data")))
        sc->refuse_data = true;
    else if (str_eq(word, STR("@refuse_commit")))
        sc->refuse_commit = true;
    else if (str_eq(word, STR("@refuse_tls")))
        sc->refuse_tls = true;
    else if (str_eq(word, STR("@shutdown")))
        sc->shutdown_after_greeting = true;
    else {
        struct str name = str_skip(word, 1);
        return set_limit(sc, name, line);
    }
    return true;
}

static bool read_line(struct script *sc, struct str line)
{
    if (line.n == 0 || line.p[0] == '#')
        return true;
    if (line.p[0] == '@')
        return set_option(sc, line);
    struct str rest = str_skip(line, line.n > 3 ? 3 : line.n);
    struct buf *input = &sc->input[sc->n_phases];
    if (str_eq(line, STR("TLS"))) {
        sc->n_phases++;
        return sc->n_phases < PHASES;
    }
    if (str_eq(line, STR("CLOSED")))
        return sc->closed = true;
    if (str_starts(line, STR("C:")) || str_starts(line, STR("C."))) {
        add_unescaped(input, rest);
        return line.p[1] == '.' || buf_add_c(input, "\r\n");
    }
    struct buf *expected = str_starts(line, STR("S:"))   ? &sc->replies
                           : str_starts(line, STR("M:")) ? &sc->messages
                           : str_starts(line, STR("A:")) ? &sc->aborts
                                                         : NULL;
    return expected && buf_add(expected, rest) && buf_add_char(expected, '\n');
}

static bool load(const char *path, struct buf *text, struct script *sc)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    buf_init(text, MAX_BYTES);
    char *at;
    size_t n = 0;
    while ((at = buf_reserve(text, 4096)) && (n = fread(at, 1, 4096, f)) > 0)
        text->n += n;
    fclose(f);
    sc->limits = smtp_server_limits_default;
    for (size_t i = 0; i < PHASES; i++)
        buf_init(&sc->input[i], MAX_BYTES);
    buf_init(&sc->replies, MAX_BYTES);
    buf_init(&sc->messages, MAX_BYTES);
    buf_init(&sc->aborts, MAX_BYTES);
    struct str rest = buf_str(text), line;
    for (unsigned number = 1; rest.n; number++) {
        str_cut(&rest, '\n', &line);
        if (!read_line(sc, line)) {
            fprintf(stderr, "%s:%u: not understood: %.*s\n", path, number, STR_ARG(line));
            return false;
        }
    }
    sc->policy_tls = sc->policy;
    sc->policy_tls.tls_active = true;
    if (sc->policy.mechanisms_tls.n)
        sc->policy_tls.mechanisms = sc->policy.mechanisms_tls;
    return true;
}

static void answer_auth(struct run *r, const struct smtp_server_event *ev)
{
    bool first = ev->type == SMTP_SERVER_AUTH;
    if (str_eq(ev->mechanism, STR("ECHO"))) {
        if (first && !ev->has_initial)
            smtp_server_auth_challenge(r->s, STR_NONE);
        else
            smtp_server_auth_done(r->s, str_eq(ev->data, STR("yes")), 0, NULL, NULL);
    } else if (str_eq(ev->mechanism, STR("LOGIN"))) {
        if (first && !ev->has_initial) {
            r->login_name_seen = false;
            smtp_server_auth_challenge(r->s, STR("Username:"));
        } else if (first || !r->login_name_seen) {
            r->login_name_seen = true;
            smtp_server_auth_challenge(r->s, STR("Password:"));
        } else {
            smtp_server_auth_done(r->s, str_eq(ev->data, STR("secret")), 0, NULL, NULL);
        }
    } else if (first && !ev->has_initial) {
        smtp_server_auth_challenge(r->s, STR_NONE);
    } else {
        bool temporary = str_eq(ev->data, STR("\0busy\0secret"));
        smtp_server_auth_done(r->s, str_eq(ev->data, STR("\0anna\0secret")), temporary ? 454 : 0,
                              temporary ? "4.7.0" : NULL, temporary ? "Temporary authentication failure" : NULL);
    }
}

static void answer_mail(struct run *r, const struct smtp_server_event *ev)
{
    struct str local = ev->transaction->sender.local;
    if (str_eq(local, STR("bad")))
        smtp_server_reject(r->s, 550, "5.7.1", "Sender refused");
    else if (str_eq(local, STR("full")))
        smtp_server_reject(r->s, 452, "4.3.1", "No room");
    else
        smtp_server_accept(r->s);
}

static void answer_rcpt(struct run *r, const struct smtp_server_event *ev)
{
    if (str_starts(ev->recipient->address.local, STR("no")))
        smtp_server_reject(r->s, 550, "5.1.1", "No such user");
    else if (str_starts(ev->recipient->address.local, STR("later")))
        smtp_server_reject(r->s, 451, "4.2.0", "Later");
    else
        smtp_server_accept(r->s);
}

static void act(struct run *r, const struct smtp_server_event *ev)
{
    switch (ev->type) {
    case SMTP_SERVER_STARTTLS:
        if (r->script->refuse_tls)
            smtp_server_reject(r->s, 454, "4.7.0", "TLS not available due to temporary reason");
        else
            smtp_server_accept(r->s);
        r->handshake = !r->script->refuse_tls;
        break;
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_AUTH_RESPONSE:
        answer_auth(r, ev);
        break;
    case SMTP_SERVER_MAIL:
        answer_mail(r, ev);
        break;
    case SMTP_SERVER_RCPT:
        answer_rcpt(r, ev);
        break;
    case SMTP_SERVER_DATA:
        buf_clear(&r->message);
        if (r->script->refuse_data)
            smtp_server_reject(r->s, 451, "4.3.0", "Not now");
        else
            smtp_server_accept(r->s);
        break;
    case SMTP_SERVER_BODY:
        buf_add(&r->message, ev->data);
        break;
    case SMTP_SERVER_COMMIT:
        if (ev->transaction->content_bytes != r->message.n)
            r->failure = "content_bytes is not what came";
        if (r->script->refuse_commit) {
            smtp_server_reject(r->s, 451, "4.3.0", "Cannot store");
            break;
        }
        add_escaped(&r->messages, buf_str(&r->message));
        buf_add_char(&r->messages, '\n');
        smtp_server_committed(r->s, STR("QID1"));
        break;
    case SMTP_SERVER_ABORT:
        buf_add(&r->aborts, ev->data);
        buf_add_char(&r->aborts, '\n');
        break;
    default:
        break;
    }
}

static void take_output(struct run *r)
{
    struct buf *out = smtp_server_output(r->s);
    buf_add(&r->replies, buf_str(out));
    buf_consume(out, out->n);
}

/* Feeds one piece; false when the machine wants no more of this phase. */
static bool feed(struct run *r, struct str in)
{
    for (int turns = 0;; turns++) {
        size_t used;
        struct smtp_server_event ev;
        smtp_server_feed(r->s, in, 0, &used, &ev);
        in = str_skip(in, used);
        act(r, &ev);
        take_output(r);
        if (ev.type == SMTP_SERVER_CLOSE) {
            r->closed = true;
            return false;
        }
        if (ev.type == SMTP_SERVER_WAIT) {
            if (!r->handshake)
                r->failure = "WAIT, but nothing was asked";
            else if (in.n)
                r->failure = "input left at the handshake";
            return false;
        }
        if (ev.type == SMTP_SERVER_READ) {
            if (in.n)
                r->failure = "READ, but input is left";
            return true;
        }
    }
}

/* Cut into pieces of `piece` octets, or (piece 0) in two at `cut`. */
static void play_phase(struct run *r, struct str in, size_t piece, size_t cut)
{
    size_t at = 0;
    while (at < in.n && !r->failure) {
        size_t n = piece ? piece : at < cut ? cut : in.n;
        if (n > in.n - at)
            n = in.n - at;
        if (!feed(r, str_slice(in.p + at, n)))
            return;
        at += n;
    }
}

static bool line_matches(struct str pattern, struct str line)
{
    return str_glob_nocase(pattern, line) && (str_find(pattern, '*') < pattern.n || str_eq(pattern, line));
}

static bool compare(const char *what, struct str expected, struct str got, const char *end)
{
    size_t end_n = strlen(end);
    while (expected.n || got.n) {
        struct str want, line;
        bool any_want = expected.n > 0, any_line = got.n > 0;
        str_cut(&expected, '\n', &want);
        str_cut(&got, '\n', &line);
        if (line.n >= end_n - 1)
            line.n -= end_n - 1; /* the CR of a reply's CRLF */
        if (!any_want || !any_line || !line_matches(want, line)) {
            fprintf(stderr, "%s: expected [%.*s]\n     %s got [%.*s]\n", what, STR_ARG(want), what, STR_ARG(line));
            return false;
        }
    }
    return true;
}

static bool play(const struct script *sc, size_t piece, size_t cut)
{
    struct run r = { .script = sc };
    buf_init(&r.replies, MAX_BYTES);
    buf_init(&r.message, MAX_BYTES);
    buf_init(&r.messages, MAX_BYTES);
    buf_init(&r.aborts, MAX_BYTES);
    const struct smtp_server_options options = {
        .hostname = STR("mx.test"), .banner = STR("Postern"), .limits = &sc->limits, .policy = sc->policy
    };
    if (smtp_server_new(&options, &r.s) != 0)
        return false;
    smtp_server_greet(r.s, 0);
    if (sc->shutdown_after_greeting)
        smtp_server_shutdown(r.s);
    for (size_t phase = 0; phase <= sc->n_phases && !r.closed && !r.failure; phase++) {
        if (phase > 0) {
            if (!r.handshake) {
                r.failure = "TLS in the transcript, but the machine waits for no handshake";
                break;
            }
            r.handshake = false;
            smtp_server_tls_started(r.s);
            smtp_server_set_policy(r.s, &sc->policy_tls);
        }
        play_phase(&r, buf_str(&sc->input[phase]), piece, cut);
    }
    bool ok = !r.failure;
    if (!ok)
        fprintf(stderr, "%s\n", r.failure);
    if (r.closed != sc->closed) {
        fprintf(stderr, "the machine %s\n", r.closed ? "closed" : "did not close");
        ok = false;
    }
    ok &= compare("reply", buf_str(&sc->replies), buf_str(&r.replies), "\r\n");
    ok &= compare("message", buf_str(&sc->messages), buf_str(&r.messages), "\n");
    ok &= compare("abort", buf_str(&sc->aborts), buf_str(&r.aborts), "\n");
    smtp_server_free(r.s);
    buf_done(&r.replies);
    buf_done(&r.message);
    buf_done(&r.messages);
    buf_done(&r.aborts);
    return ok;
}

static bool play_all(const char *path)
{
    struct script sc = { 0 };
    struct buf text;
    if (!load(path, &text, &sc)) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return false;
    }
    size_t longest = 0;
    for (size_t i = 0; i <= sc.n_phases; i++)
        longest = sc.input[i].n > longest ? sc.input[i].n : longest;
    bool ok = play(&sc, SIZE_MAX, 0);
    if (!ok)
        fprintf(stderr, "%s: failed in one piece\n", path);
    for (size_t piece = 1; ok && piece <= 3; piece++)
        if (!(ok = play(&sc, piece, 0)))
            fprintf(stderr, "%s: failed in pieces of %zu\n", path, piece);
    for (size_t cut = 1; ok && cut < longest; cut++)
        if (!(ok = play(&sc, 0, cut)))
            fprintf(stderr, "%s: failed cut at %zu\n", path, cut);
    for (size_t i = 0; i < PHASES; i++)
        buf_done(&sc.input[i]);
    buf_done(&sc.replies);
    buf_done(&sc.messages);
    buf_done(&sc.aborts);
    buf_done(&text);
    return ok;
}

int main(int argc, char **argv)
{
    bool ok = argc > 1;
    for (int i = 1; i < argc; i++)
        ok &= play_all(argv[i]);
    return ok ? 0 : 1;
}
