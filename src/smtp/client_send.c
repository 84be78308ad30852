/* One message: its commands, their replies in step, the body, the results.
 *
 * The happy path: fill() writes the commands that may go now (with PIPELINING all up to DATA, else one),
 * each reply moves `got` on, the reply to DATA or to the last RCPT opens the body, the final reply settles
 * who was accepted. The ways it fails: MAIL or DATA refused settles everybody and the replies that are
 * still outstanding are read and dropped; a broken or confused connection ends in
 * smtp_client_sending_abandon(). */
#include <stdlib.h>

#include "smtp/client_internal.h"

enum { WINDOW_BYTES = 32 * 1024, ADDRESS_MAX_BYTES = 1000, PARAMETER_MAX_BYTES = 600 };

static size_t data_slot(const struct smtp_client_sending *s)
{
    return SMTP_CLIENT_SLOT_RCPT + s->message.n_recipients;
}

/* The next slot that takes part, from `slot` on. */
static size_t slot_from(const struct smtp_client *client, size_t slot)
{
    const struct smtp_client_sending *s = &client->sending;
    if (slot == SMTP_CLIENT_SLOT_RSET && !s->with_rset)
        slot++;
    while (slot >= SMTP_CLIENT_SLOT_RCPT && slot < data_slot(s) &&
           client->rcpt[slot - SMTP_CLIENT_SLOT_RCPT].state == SMTP_CLIENT_RCPT_LOCAL)
        slot++;
    return slot;
}

static enum smtp_client_stage slot_stage(const struct smtp_client_sending *s, size_t slot)
{
    if (slot == SMTP_CLIENT_SLOT_RSET)
        return SMTP_CLIENT_STAGE_RSET;
    if (slot == SMTP_CLIENT_SLOT_MAIL)
        return SMTP_CLIENT_STAGE_MAIL;
    return slot < data_slot(s) ? SMTP_CLIENT_STAGE_RCPT : SMTP_CLIENT_STAGE_DATA;
}

enum smtp_client_stage smtp_client_sending_stage(const struct smtp_client *client)
{
    const struct smtp_client_sending *s = &client->sending;
    if (s->got < s->next)
        return slot_stage(s, s->got);
    if (s->body_open)
        return SMTP_CLIENT_STAGE_BODY;
    return s->body_over ? SMTP_CLIENT_STAGE_END : slot_stage(s, s->got);
}

bool smtp_client_sending_expects(const struct smtp_client *client)
{
    const struct smtp_client_sending *s = &client->sending;
    return s->got < s->next || s->body_over || s->body_open;
}

static void settle(struct smtp_client *client, struct smtp_client_rcpt *rcpt, enum smtp_client_stage stage,
                   const struct smtp_reply *reply)
{
    if (rcpt->state == SMTP_CLIENT_RCPT_ACCEPTED)
        client->sending.n_accepted--;
    rcpt->state = SMTP_CLIENT_RCPT_SETTLED;
    smtp_client_record(client, rcpt, stage, reply->code, reply->enhanced, reply->text);
}

static void settle_all(struct smtp_client *client, enum smtp_client_stage stage, const struct smtp_reply *reply)
{
    for (size_t i = 0; i < client->sending.message.n_recipients; i++)
        if (client->rcpt[i].state < SMTP_CLIENT_RCPT_SETTLED)
            settle(client, &client->rcpt[i], stage, reply);
}

void smtp_client_sending_abandon(struct smtp_client *client)
{
    const struct smtp_client_rcpt *f = &client->failure;
    for (size_t i = 0; i < client->sending.message.n_recipients; i++) {
        struct smtp_client_rcpt *rcpt = &client->rcpt[i];
        if (rcpt->state >= SMTP_CLIENT_RCPT_SETTLED)
            continue;
        *rcpt = *f;
        rcpt->state = SMTP_CLIENT_RCPT_SETTLED;
    }
    client->sending.body_open = false;
}

static void finish(struct smtp_client *client, bool dirty)
{
    client->dirty = dirty;
    client->sending.body_open = false;
    smtp_client_set_state(client, SMTP_CLIENT_IDLE);
    client->pending = SMTP_CLIENT_DONE;
    client->deadline_ms = -1;
}

/* What a path may hold so that the command's line stays one command. */
static bool address_fits(struct str address)
{
    bool quoted = false;
    if (address.n > ADDRESS_MAX_BYTES)
        return false;
    for (size_t i = 0; i < address.n; i++) {
        unsigned char c = (unsigned char)address.p[i];
        if (c < ' ' || c == 127)
            return false;
        if (c == '"')
            quoted = !quoted;
        else if (quoted && c == '\\' && ++i == address.n)
            return false;
        else if (!quoted && (c == ' ' || c == '<' || c == '>'))
            return false;
    }
    return !quoted;
}

static bool parameter_fits(struct str value)
{
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] <= ' ' || value.p[i] == 127)
            return false;
    return value.n > 0 && value.n <= PARAMETER_MAX_BYTES;
}

static bool is_ascii(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] > 127)
            return false;
    return true;
}

static void refuse(struct smtp_client *client, struct smtp_client_rcpt *rcpt, enum smtp_client_stage stage,
                   const char *enhanced, const char *text)
{
    rcpt->state = SMTP_CLIENT_RCPT_LOCAL;
    smtp_client_record(client, rcpt, stage, 0, enhanced, str_of(text));
}

/* The peer's word is not needed for these. Returns how many recipients are left. */
static size_t refuse_here(struct smtp_client *client)
{
    const struct smtp_client_message *m = &client->sending.message;
    const char *enhanced = NULL, *text = NULL;
    bool utf8 = m->smtputf8 || !is_ascii(m->sender);
    char size_text[160];
    if (!address_fits(m->sender)) {
        enhanced = "5.1.7";
        text = "the sender's address cannot be written into a MAIL command";
    } else if (utf8 && !(client->can & SMTP_CLIENT_CAN_SMTPUTF8)) {
        enhanced = "5.6.7";
        text = "SMTPUTF8 is required, but was not offered by the server";
    } else if (m->eightbit && !(client->can & SMTP_CLIENT_CAN_8BITMIME)) {
        enhanced = "5.6.3";
        text = "the message has 8-bit content, but 8BITMIME was not offered by the server";
    } else if (client->size_limit && m->body_bytes > client->size_limit) {
        snprintf(size_text, sizeof size_text, "message size %llu exceeds size limit %llu of the server",
                 (unsigned long long)m->body_bytes, (unsigned long long)client->size_limit);
        enhanced = "5.3.4";
        text = size_text;
    }
    size_t left = 0;
    for (size_t i = 0; i < m->n_recipients; i++) {
        struct str address = m->recipient[i].address;
        struct smtp_client_rcpt *rcpt = &client->rcpt[i];
        if (enhanced)
            refuse(client, rcpt, SMTP_CLIENT_STAGE_MAIL, enhanced, text);
        else if (address.n == 0 || !address_fits(address))
            refuse(client, rcpt, SMTP_CLIENT_STAGE_RCPT, "5.1.3",
                   "the address cannot be written into a RCPT command");
        else if (!utf8 && !is_ascii(address) && !(client->can & SMTP_CLIENT_CAN_SMTPUTF8))
            refuse(client, rcpt, SMTP_CLIENT_STAGE_RCPT, "5.6.7",
                   "SMTPUTF8 is required, but was not offered by the server");
        else
            left++;
    }
    return left;
}

/* Writes a parameter when it can be written. */
static void add_parameter(struct buf *out, const char *name, struct str value)
{
    if (!parameter_fits(value))
        return;
    buf_add_char(out, ' ');
    buf_add_c(out, name);
    buf_add(out, value);
}

static bool needs_utf8(const struct smtp_client_message *m)
{
    bool ascii = is_ascii(m->sender);
    for (size_t i = 0; ascii && i < m->n_recipients; i++)
        ascii = is_ascii(m->recipient[i].address);
    return m->smtputf8 || !ascii;
}

static void add_mail(struct smtp_client *client, struct buf *out)
{
    const struct smtp_client_message *m = &client->sending.message;
    buf_add(out, STR("MAIL FROM:<"));
    buf_add(out, m->sender);
    buf_add_char(out, '>');
    if (client->can & SMTP_CLIENT_CAN_SIZE)
        buf_addf(out, " SIZE=%llu", (unsigned long long)m->body_bytes);
    if (m->eightbit)
        buf_add(out, STR(" BODY=8BITMIME"));
    if ((client->can & SMTP_CLIENT_CAN_SMTPUTF8) && needs_utf8(m))
        buf_add(out, STR(" SMTPUTF8"));
    /* Who wrote it is not ours to vouch for (RFC 4954 section 5). */
    if (client->authenticated && (client->can & SMTP_CLIENT_CAN_AUTH))
        buf_add(out, STR(" AUTH=<>"));
    if (client->can & SMTP_CLIENT_CAN_DSN) {
        add_parameter(out, "RET=", m->ret);
        add_parameter(out, "ENVID=", m->envid);
    }
}

static void add_rcpt(struct smtp_client *client, struct buf *out, const struct smtp_client_recipient *rcpt)
{
    buf_add(out, STR("RCPT TO:<"));
    buf_add(out, rcpt->address);
    buf_add_char(out, '>');
    if (client->can & SMTP_CLIENT_CAN_DSN) {
        add_parameter(out, "NOTIFY=", rcpt->notify);
        add_parameter(out, "ORCPT=", rcpt->orcpt);
    }
}

static void write_slot(struct smtp_client *client, size_t slot)
{
    struct smtp_client_sending *s = &client->sending;
    struct buf *out = &client->out;
    size_t from = out->n;
    if (slot == SMTP_CLIENT_SLOT_RSET)
        buf_add(out, STR("RSET"));
    else if (slot == SMTP_CLIENT_SLOT_MAIL)
        add_mail(client, out);
    else if (slot < data_slot(s))
        add_rcpt(client, out, &s->message.recipient[slot - SMTP_CLIENT_SLOT_RCPT]);
    else if (s->with_bdat)
        buf_addf(out, "BDAT %llu LAST", (unsigned long long)s->message.body_bytes);
    else
        buf_add(out, STR("DATA"));
    smtp_client_trace(client, '>', str_slice(out->p + from, out->n - from));
    buf_add(out, STR("\r\n"));
}

static void open_body(struct smtp_client *client, int64_t now_ms)
{
    client->sending.body_open = true;
    client->pending = SMTP_CLIENT_BODY_WANTED;
    smtp_client_await(client, SMTP_CLIENT_STAGE_BODY, now_ms);
}

/* DATA, or BDAT and its chunk. False: not yet. */
static bool write_data(struct smtp_client *client, int64_t now_ms)
{
    struct smtp_client_sending *s = &client->sending;
    bool answered = s->got == s->next;
    if (answered && s->n_accepted == 0) {
        s->stopped = true;
        return false;
    }
    if (s->with_bdat && !answered && !s->one_flight)
        return false;
    write_slot(client, data_slot(s));
    s->stopped = true;
    /* A chunk's reply is the final one: the slot itself has none. */
    if (s->with_bdat)
        open_body(client, now_ms);
    else
        s->next = data_slot(s) + 1;
    return true;
}

/* Writes the commands that may go now, and notices the end. */
static void fill(struct smtp_client *client, int64_t now_ms)
{
    struct smtp_client_sending *s = &client->sending;
    bool pipelining = (client->can & SMTP_CLIENT_CAN_PIPELINING) && !client->options.no_pipelining;
    bool idle = s->got == s->next;
    while (!s->stopped && (pipelining ? client->out.n < WINDOW_BYTES : s->got == s->next)) {
        if (s->next == data_slot(s)) {
            write_data(client, now_ms);
            break;
        }
        write_slot(client, s->next);
        s->next = slot_from(client, s->next + 1);
    }
    if (s->stopped && s->got == s->next && !s->body_open && !s->body_over)
        finish(client, true);
    else if (idle && !s->body_open)
        smtp_client_await(client, smtp_client_sending_stage(client), now_ms);
}

bool smtp_client_send(struct smtp_client *client, const struct smtp_client_message *message, int64_t now_ms)
{
    if (client->state != SMTP_CLIENT_IDLE)
        return false;
    if (message->n_recipients > client->rcpt_cap) {
        struct smtp_client_rcpt *rcpt = reallocarray(client->rcpt, message->n_recipients, sizeof *rcpt);
        if (!rcpt)
            return false;
        client->rcpt = rcpt;
        client->rcpt_cap = message->n_recipients;
    }
    if (message->n_recipients)
        memset(client->rcpt, 0, message->n_recipients * sizeof *client->rcpt);
    buf_clear(&client->texts);
    unsigned can = client->can;
    client->sending = (struct smtp_client_sending){
        .message = *message, .body_left = message->body_bytes, .line_start = true, .with_rset = client->dirty,
        .with_bdat = client->options.bdat != SMTP_CLIENT_BDAT_NEVER && (can & SMTP_CLIENT_CAN_CHUNKING) &&
                     !client->options.lmtp,
        .one_flight = client->options.bdat == SMTP_CLIENT_BDAT_ONE_FLIGHT && (can & SMTP_CLIENT_CAN_PIPELINING) &&
                      message->body_bytes <= SMTP_CLIENT_ONE_FLIGHT_MAX_BYTES,
        .used_dsn = (can & SMTP_CLIENT_CAN_DSN) != 0,
    };
    smtp_client_set_state(client, SMTP_CLIENT_SENDING);
    client->pending = SMTP_CLIENT_READ;
    if (refuse_here(client) == 0) {
        finish(client, client->dirty);
        return true;
    }
    client->sending.next = client->sending.got = slot_from(client, 0);
    fill(client, now_ms);
    return true;
}

/* The command line of a transaction was answered in a way that ends it for everybody. */
static void refused(struct smtp_client *client, enum smtp_client_stage stage, const struct smtp_reply *reply)
{
    settle_all(client, stage, reply);
    client->sending.stopped = true;
}

static void reply_data(struct smtp_client *client, const struct smtp_reply *reply, int64_t now_ms)
{
    struct smtp_client_sending *s = &client->sending;
    if (reply->code >= 400) {
        refused(client, SMTP_CLIENT_STAGE_DATA, reply);
    } else if (reply->code != 354) {
        smtp_client_out_of_step(client, reply);
    } else if (s->n_accepted > 0) {
        open_body(client, now_ms);
    } else if (client->options.lmtp) {
        /* RFC 2033 section 4.2 forbids it: nobody can know how many replies would follow. */
        smtp_client_out_of_step(client, reply);
    } else {
        s->empty_data = s->body_over = true;
        smtp_client_command(client, STR("."));
        smtp_client_await(client, SMTP_CLIENT_STAGE_END, now_ms);
    }
}

static void reply_final(struct smtp_client *client, const struct smtp_reply *reply, int64_t now_ms)
{
    struct smtp_client_sending *s = &client->sending;
    if (s->empty_data) {
        finish(client, true);
        return;
    }
    if (reply->code / 100 == 3) {
        smtp_client_out_of_step(client, reply);
        return;
    }
    if (!client->options.lmtp) {
        settle_all(client, SMTP_CLIENT_STAGE_END, reply);
        /* After a refused chunk nothing is certain but RSET (RFC 3030 section 2). */
        finish(client, s->with_bdat && reply->code >= 400);
        return;
    }
    while (client->rcpt[s->final_rcpt].state != SMTP_CLIENT_RCPT_ACCEPTED)
        s->final_rcpt++;
    settle(client, &client->rcpt[s->final_rcpt], SMTP_CLIENT_STAGE_END, reply);
    if (s->n_accepted == 0)
        finish(client, false);
    else
        smtp_client_await(client, SMTP_CLIENT_STAGE_END, now_ms);
}

static void reply_command(struct smtp_client *client, const struct smtp_reply *reply, int64_t now_ms)
{
    struct smtp_client_sending *s = &client->sending;
    size_t slot = s->got;
    enum smtp_client_stage stage = slot_stage(s, slot);
    struct smtp_client_rcpt *rcpt = stage == SMTP_CLIENT_STAGE_RCPT ? &client->rcpt[slot - SMTP_CLIENT_SLOT_RCPT] : NULL;
    s->got = slot == data_slot(s) ? slot + 1 : slot_from(client, slot + 1);
    if (stage == SMTP_CLIENT_STAGE_DATA) {
        reply_data(client, reply, now_ms);
    } else if (reply->code / 100 == 3) {
        smtp_client_out_of_step(client, reply);
    } else if (rcpt && rcpt->state == SMTP_CLIENT_RCPT_LIVE) {
        if (reply->code < 300) {
            rcpt->state = SMTP_CLIENT_RCPT_ACCEPTED;
            s->n_accepted++;
        } else {
            settle(client, rcpt, stage, reply);
        }
    } else if (stage == SMTP_CLIENT_STAGE_MAIL && reply->code >= 400) {
        refused(client, stage, reply);
    } else if (stage == SMTP_CLIENT_STAGE_RSET && reply->code >= 400) {
        smtp_client_over_reply(client, stage, reply);
    }
}

void smtp_client_sending_reply(struct smtp_client *client, const struct smtp_reply *reply, bool more_input,
                               int64_t now_ms)
{
    struct smtp_client_sending *s = &client->sending;
    if (reply->code == 421) {
        smtp_client_over_reply(client, smtp_client_sending_stage(client), reply);
        return;
    }
    if (s->got < s->next) {
        reply_command(client, reply, now_ms);
        if (more_input && s->got == s->next && (!s->stopped || reply->code == 354))
            smtp_client_out_of_step(client, reply);
        if (client->state != SMTP_CLIENT_SENDING || client->pending == SMTP_CLIENT_BODY_WANTED || s->body_over ||
            s->body_open)
            return;
        fill(client, now_ms);
        if (client->state == SMTP_CLIENT_SENDING && !s->body_open && s->got < s->next)
            smtp_client_await(client, slot_stage(s, s->got), now_ms);
    } else if (s->body_over) {
        reply_final(client, reply, now_ms);
    } else if (reply->code >= 400) {
        /* Before the body's end. The rest of it would be taken for commands: the connection is over. */
        settle_all(client, SMTP_CLIENT_STAGE_BODY, reply);
        smtp_client_over_reply(client, SMTP_CLIENT_STAGE_BODY, reply);
    } else {
        smtp_client_out_of_step(client, reply);
    }
}

/* The next dot at the start of a line, not at chunk.p[from] itself. Dots are rarer than line ends, and looking for one
 * octet is several times as fast as looking for two. */
static size_t find_line_dot(struct str chunk, size_t from)
{
    const char *end = chunk.p + chunk.n, *p = chunk.p + from + 1;
    while (p < end && (p = memchr(p, '.', (size_t)(end - p))) != NULL) {
        if (p[-1] == '\n')
            return (size_t)(p - chunk.p);
        p++;
    }
    return chunk.n;
}

/* Slices of `chunk` with a dot in front of every line that begins with one. */
static size_t stuff(struct smtp_client_sending *s, struct str chunk, struct str *slices, size_t n_slices,
                    size_t *ret_taken)
{
    size_t n = 0, at = 0;
    while (at < chunk.n && n < n_slices) {
        if (s->line_start && chunk.p[at] == '.') {
            slices[n++] = STR(".");
            s->line_start = false; /* the dot itself goes with the next slice */
            continue;
        }
        size_t end = find_line_dot(chunk, at);
        slices[n++] = str_slice(chunk.p + at, end - at);
        s->line_start = chunk.p[end - 1] == '\n';
        at = end;
    }
    *ret_taken = at;
    return n;
}

size_t smtp_client_body(struct smtp_client *client, struct str chunk, struct str *slices, size_t n_slices,
                        size_t *ret_taken, int64_t now_ms)
{
    struct smtp_client_sending *s = &client->sending;
    *ret_taken = 0;
    if (!smtp_client_body_open(client) || n_slices == 0)
        return 0;
    smtp_client_await(client, SMTP_CLIENT_STAGE_BODY, now_ms);
    if (chunk.n > s->body_left)
        chunk.n = (size_t)s->body_left;
    if (chunk.n == 0)
        return 0;
    size_t n = 1;
    if (s->with_bdat) {
        slices[0] = chunk;
        *ret_taken = chunk.n;
    } else {
        n = stuff(s, chunk, slices, n_slices, ret_taken);
    }
    s->body_left -= *ret_taken;
    return n;
}

void smtp_client_body_end(struct smtp_client *client, int64_t now_ms)
{
    struct smtp_client_sending *s = &client->sending;
    if (!smtp_client_body_open(client))
        return;
    if (s->body_left > 0) {
        smtp_client_over(client, "4.3.0", "the message could not be read to its end");
        return;
    }
    if (client->options.trace) {
        char text[64];
        int n = snprintf(text, sizeof text, "[body, %llu octets]", (unsigned long long)s->message.body_bytes);
        smtp_client_trace(client, '>', str_slice(text, (size_t)n));
    }
    if (!s->with_bdat)
        buf_add(&client->out, s->line_start ? STR(".\r\n") : STR("\r\n.\r\n"));
    s->body_open = false;
    s->body_over = true;
    smtp_client_await(client, smtp_client_sending_stage(client), now_ms);
}

bool smtp_client_body_open(const struct smtp_client *client)
{
    return client->state == SMTP_CLIENT_SENDING && client->sending.body_open;
}

struct smtp_client_result smtp_client_result(const struct smtp_client *client, size_t recipient)
{
    if (recipient >= client->sending.message.n_recipients)
        return (struct smtp_client_result){ .enhanced = "4.3.0" };
    return smtp_client_result_of(client, &client->rcpt[recipient]);
}

bool smtp_client_used_dsn(const struct smtp_client *client)
{
    return client->sending.used_dsn;
}
