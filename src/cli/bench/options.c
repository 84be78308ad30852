#include "cli/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <stddef.h>
#include <unistd.h>

#include "conf/network.h"

enum kind { FLAG, COUNT, SIZE, SECONDS, TEXT };
enum { PASSWORD_FILE_MAX_BYTES = 4096, PORT_TEXT_BYTES = 8 };

/* One row an option; `place` is the member's offset in struct bench_options. */
static const struct row {
    const char *name;
    char letter;
    enum kind kind;
    size_t place;
    uint64_t min, max; /* SECONDS: in milliseconds */
} rows[] = {
#define PLACE(member) offsetof(struct bench_options, member)
    { "connections", 'n', COUNT, PLACE(connections), 1, 1000000 },
    { "per-connection", 'k', COUNT, PLACE(per_connection), 0, UINT32_MAX },
    { "messages", 'm', COUNT, PLACE(messages), 1, UINT32_MAX },
    { "duration", 'd', SECONDS, PLACE(duration_ms), 1, 86400000 },
    { "size", 's', SIZE, PLACE(size_bytes), 1, UINT64_C(1) << 40 },
    { "recipients", 'r', COUNT, PLACE(recipients), 1, BENCH_RECIPIENTS_MAX },
    { "from", 'f', TEXT, PLACE(sender), 0, 0 },
    { "to", 't', TEXT, PLACE(recipient), 0, 0 },
    { "helo", 'H', TEXT, PLACE(helo), 0, 0 },
    { "user", 'u', TEXT, PLACE(user), 0, 0 },
    { "password-file", 'p', TEXT, PLACE(password_file), 0, 0 },
    { "mechanism", 'a', TEXT, PLACE(mechanism), 0, 0 },
    { "keytab", 'y', TEXT, PLACE(keytab), 0, 0 },
    { "spn", 'N', TEXT, PLACE(spn), 0, 0 },
    { "tokens", 'x', COUNT, PLACE(tokens), 0, 1000000 },
    { "starttls", 'T', FLAG, PLACE(starttls), 0, 0 },
    { "tls", 'S', FLAG, PLACE(tls), 0, 0 },
    { "no-pipelining", 'P', FLAG, PLACE(no_pipelining), 0, 0 },
    { "bdat", 'b', FLAG, PLACE(bdat), 0, 0 },
    { "sessions", 'q', FLAG, PLACE(sessions), 0, 0 },
    { "idle", 'I', SECONDS, PLACE(idle_ms), 0, 86400000 },
    { "timeout", 'w', SECONDS, PLACE(timeout_ms), 1, 86400000 },
    { "errors", 'e', COUNT, PLACE(errors_max), 1, UINT32_MAX },
    { "sink", 'K', TEXT, PLACE(sink), 0, 0 },
#undef PLACE
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static bool read_size(struct str text, uint64_t *ret_v)
{
    static const char units[] = "KMG";
    uint64_t unit = 1;
    const char *u = text.n ? memchr(units, text.p[text.n - 1], sizeof units - 1) : NULL;
    if (u) {
        unit = UINT64_C(1) << (10 * (u - units + 1));
        text.n--;
    }
    if (!str_to_u64(text, UINT64_MAX / unit, ret_v))
        return false;
    *ret_v *= unit;
    return true;
}

/* "2", "0.5": milliseconds. */
static bool read_seconds(struct str text, uint64_t *ret_ms)
{
    struct str whole;
    uint64_t s, fraction = 0;
    bool point = str_cut(&text, '.', &whole);
    if (!str_to_u64(whole, UINT32_MAX, &s) || (point && (text.n > 3 || !str_to_u64(text, 999, &fraction))))
        return false;
    for (size_t digits = point ? text.n : 3; digits < 3; digits++)
        fraction *= 10;
    *ret_ms = s * 1000 + fraction;
    return true;
}

static int apply(struct bench_options *o, const struct row *row, const char *value)
{
    void *place = (char *)o + row->place;
    uint64_t v = 0;
    bool good = true;
    switch (row->kind) {
    case FLAG: *(bool *)place = true; return CLI_OK;
    case TEXT: *(const char **)place = value; return CLI_OK;
    case COUNT: good = str_to_u64(str_of(value), UINT64_MAX, &v); break;
    case SIZE: good = read_size(str_of(value), &v); break;
    case SECONDS: good = read_seconds(str_of(value), &v); break;
    }
    if (!good || v < row->min || v > row->max)
        return cli_usage("bench", "--%s %s: %s", row->name, value,
                         row->kind == SIZE      ? "give octets, or a number with K, M or G"
                         : row->kind == SECONDS ? "give seconds, such as 10 or 0.5"
                                                : "not a number that is possible here");
    *(uint64_t *)place = v;
    if (strcmp(row->name, "idle") == 0)
        o->mode = BENCH_IDLE;
    return CLI_OK;
}

static int read_arguments(struct bench_options *o, int argc, char **argv)
{
    struct option longs[N_ROWS + 1] = { 0 };
    char shorts[2 * N_ROWS + 1];
    size_t n = 0;
    for (size_t i = 0; i < N_ROWS; i++) {
        bool flag = rows[i].kind == FLAG;
        longs[i] = (struct option){ rows[i].name, flag ? no_argument : required_argument, NULL, rows[i].letter };
        shorts[n++] = rows[i].letter;
        if (!flag)
            shorts[n++] = ':';
    }
    shorts[n] = 0;
    optind = 0; /* the library has read the program's own arguments before */
    opterr = 0;
    int letter;
    while ((letter = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        size_t i = 0;
        while (i < N_ROWS && rows[i].letter != letter)
            i++;
        if (i == N_ROWS)
            return cli_usage("bench", "%s: no such option, or its value is missing", argv[optind - 1]);
        int status = apply(o, &rows[i], optarg);
        if (status != CLI_OK)
            return status;
    }
    if (argc - optind > 1)
        return cli_usage("bench", "%s: one server at a time", argv[optind + 1]);
    o->target = argv[optind];
    return CLI_OK;
}

/* The first line of the file, without its end. */
static int read_password(struct bench_options *o)
{
    char text[PASSWORD_FILE_MAX_BYTES];
    bool from_stdin = strcmp(o->password_file, "-") == 0;
    int fd = from_stdin ? STDIN_FILENO : open(o->password_file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    int saved_errno = errno;
    if (fd >= 0 && !from_stdin)
        close(fd);
    if (n < 0)
        return cli_fail(CLI_NO_INPUT, "%s: the password cannot be read: %s", o->password_file, strerror(saved_errno));
    struct str line = str_slice(text, (size_t)n);
    line.n = str_find(line, '\n');
    o->password = secret_new(line);
    secret_wipe(text, sizeof text);
    return o->password ? CLI_OK : cli_fail(CLI_SYSTEM, "out of memory for a password");
}

static int resolve(struct bench_options *o, const char *text, bool passive)
{
    struct str host;
    uint16_t port = 0;
    if (!network_host_port_parse(str_of(text), &host, &port))
        return cli_usage("bench", "%s: give HOST, HOST:PORT or [IPv6]:PORT", text);
    o->host = str_dup(host);
    char service[PORT_TEXT_BYTES];
    snprintf(service, sizeof service, "%u", port ? port : o->tls ? 465U : 25U);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0) };
    struct addrinfo *found = NULL;
    int rc = o->host ? getaddrinfo(o->host, service, &hints, &found) : EAI_MEMORY;
    if (rc != 0)
        return cli_fail(CLI_NO_INPUT, "%s: %s", text, gai_strerror(rc));
    memcpy(&o->address, found->ai_addr, found->ai_addrlen);
    o->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return CLI_OK;
}

static int check(const struct bench_options *o)
{
    if (!o->sink && !o->target)
        return cli_usage("bench", "which server? Give HOST or HOST:PORT");
    if (o->sink && o->target)
        return cli_usage("bench", "--sink takes no server beside it");
    if (o->tls && o->starttls)
        return cli_usage("bench", "--tls and --starttls exclude each other");
    if ((o->user != NULL) != (o->password_file || o->keytab) || (o->password_file && o->keytab))
        return cli_usage("bench", "--user and either --password-file or --keytab belong together");
    const struct sasl_mechanism *m = o->mechanism ? sasl_mechanism_find(str_of(o->mechanism)) : NULL;
    if (o->mechanism && (!m || !m->client))
        return cli_usage("bench", "--mechanism %s: no such mechanism here", o->mechanism);
    if ((o->keytab || o->spn || o->tokens) && !(m && m->flags & SASL_GSS))
        return cli_usage("bench", "--keytab, --spn and --tokens are for --mechanism GSSAPI and GSS-SPNEGO");
    if (o->sessions && o->mode == BENCH_IDLE)
        return cli_usage("bench", "--sessions and --idle exclude each other");
    return CLI_OK;
}

int bench_options_read(struct bench_options *o, int argc, char **argv)
{
    *o = (struct bench_options){ .connections = 1, .messages = 1000, .recipients = 1, .size_bytes = 4096,
        .errors_max = 100, .timeout_ms = 60000, .sender = "sender@bench.test", .recipient = "user@bench.test",
        .helo = "client.bench.test" };
    int status = read_arguments(o, argc, argv);
    if (status == CLI_OK)
        status = check(o);
    if (status != CLI_OK)
        return status;
    if (o->sink)
        o->mode = BENCH_SINK;
    else if (o->sessions)
        o->mode = BENCH_SESSIONS;
    if (o->password_file)
        status = read_password(o);
    if (status == CLI_OK)
        status = resolve(o, o->sink ? o->sink : o->target, o->sink != NULL);
    return status;
}

void bench_options_done(struct bench_options *o)
{
    free(o->host);
    secret_free(&o->password);
}
