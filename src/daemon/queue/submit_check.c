#include <stdlib.h>

#include "daemon/queue/submit.h"
#include "policy/recipient.h"
#include "policy/route.h"
#include "smtp/address.h"

/* ---- the request ---- */

static struct str text_of(const json_t *value)
{
    return str_slice(json_string_value(value), json_string_length(value));
}

static size_t recipients_max(const struct conf *conf)
{
    return conf->max_recipients < SPOOL_RECIPIENTS_MAX ? conf->max_recipients : SPOOL_RECIPIENTS_MAX;
}

static int read_recipients(const json_t *list, struct submit_request *r, struct err *err)
{
    r->n_recipients = json_array_size(list);
    r->recipient = calloc(r->n_recipients, sizeof *r->recipient);
    if (!r->recipient)
        return err_set(err, -ENOMEM, "no memory for a message; try again later");
    for (size_t i = 0; i < r->n_recipients; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_string(value))
            return err_set(err, ERR_SYNTAX, "a recipient of the request is no text");
        r->recipient[i] = text_of(value);
    }
    return 0;
}

int submit_request_read(const json_t *object, const struct conf *conf, struct submit_request *ret, struct err *err)
{
    *ret = (struct submit_request){ 0 };
    const json_t *sender = json_object_get(object, "sender"), *list = json_object_get(object, "recipients"),
                 *size = json_object_get(object, "size");
    if (!json_is_string(sender) || !json_is_array(list) || !json_is_integer(size))
        return err_set(err, ERR_SYNTAX, "a submit request needs sender, recipients and size (docs/control.md)");
    if (json_array_size(list) < 1)
        return err_set(err, ERR_SYNTAX, "the message has no recipients");
    if (json_array_size(list) > recipients_max(conf))
        return err_set(err, ERR_LIMIT, "the message has %zu recipients, %zu are allowed (max_recipients); send it in parts",
                       json_array_size(list), recipients_max(conf));
    json_int_t n = json_integer_value(size);
    if (n < 1)
        return err_set(err, ERR_SYNTAX, "the message is empty");
    if ((uint64_t)n > conf->max_message_size)
        return err_set(err, ERR_LIMIT, "the message has %lld octets, %llu are allowed (max_message_size)", (long long)n,
                       (unsigned long long)conf->max_message_size);
    ret->sender = text_of(sender);
    ret->size_bytes = (uint64_t)n;
    int rc = read_recipients(list, ret, err);
    if (rc < 0)
        submit_request_done(ret);
    return rc;
}

void submit_request_done(struct submit_request *r)
{
    free(r->recipient);
    *r = (struct submit_request){ 0 };
}

/* ---- addresses ---- */

struct submit_shown submit_shown(struct str s)
{
    struct submit_shown ret;
    size_t n = s.n < sizeof ret.text - 1 ? s.n : sizeof ret.text - 1;
    for (size_t i = 0; i < n; i++)
        ret.text[i] = (unsigned char)s.p[i] >= 0x20 && (unsigned char)s.p[i] < 0x7f ? s.p[i] : '?';
    ret.text[n] = 0;
    return ret;
}

static int check_local(const struct smtp_address *a, struct err *err)
{
    struct buf plain;
    buf_init(&plain, SMTP_ADDRESS_LOCAL_MAX_BYTES);
    bool fits = smtp_address_local_plain(a, &plain);
    enum recipient_form form = fits ? recipient_check_local(buf_str(&plain)) : RECIPIENT_LONG;
    buf_done(&plain);
    return form == RECIPIENT_OK ? 0 : err_set(err, ERR_SYNTAX, "bad recipient address <%s>: %s", submit_shown(a->text).text,
                                              recipient_form_text(form));
}

static int check_recipient(const struct conf *conf, struct str text, struct str *ret_address, struct err *err)
{
    *ret_address = text;
    if (str_eq_nocase(text, STR("postmaster")) && conf->postmaster) {
        *ret_address = str_of(conf->postmaster);
        return 0;
    }
    struct smtp_address a;
    enum smtp_address_fault fault;
    if (!smtp_address_parse(text, &a, &fault))
        return err_set(err, ERR_SYNTAX, "bad recipient address <%s>: %s", submit_shown(text).text, smtp_address_fault_text(fault));
    char domain[SMTP_ADDRESS_DOMAIN_MAX_BYTES + 1];
    for (size_t i = 0; i < a.domain.n; i++)
        domain[i] = ascii_lower(a.domain.p[i]);
    struct str lower = str_slice(domain, a.domain.n);
    int index = route_find(conf, lower);
    if (index < 0)
        return err_set(err, ERR_DENIED, "there is no way to <%s>: the configuration has no domain block for it and no domain \"*\"",
                       submit_shown(text).text);
    const struct conf_domain *block = &conf->domain[index];
    if (conf->postmaster && recipient_is_postmaster(a.local, lower, block)) {
        *ret_address = str_of(conf->postmaster);
        return 0;
    }
    return route_is_ours(block) ? check_local(&a, err) : 0;
}

int submit_check_envelope(const struct conf *conf, const struct submit_message *m, struct arena *arena,
                          struct spool_recipient **ret_recipients, bool *ret_utf8, struct err *err)
{
    enum smtp_address_fault fault;
    if (m->sender.n && !smtp_address_parse(m->sender, NULL, &fault))
        return err_set(err, ERR_SYNTAX, "bad sender address <%s>: %s", submit_shown(m->sender).text, smtp_address_fault_text(fault));
    if (m->n_recipients < 1 || m->n_recipients > recipients_max(conf))
        return err_set(err, ERR_LIMIT, "the message has %zu recipients, 1 to %zu are allowed (max_recipients)",
                       m->n_recipients, recipients_max(conf));
    struct spool_recipient *r = arena_alloc(arena, m->n_recipients * sizeof *r);
    if (!r)
        return err_set(err, -ENOMEM, "no memory for a message; try again later");
    *ret_utf8 = !smtp_is_ascii(m->sender);
    for (size_t i = 0; i < m->n_recipients; i++) {
        int rc = check_recipient(conf, m->recipient[i], &r[i].address, err);
        if (rc < 0)
            return rc;
        *ret_utf8 |= !smtp_is_ascii(r[i].address);
    }
    *ret_recipients = r;
    return 0;
}

/* ---- content ---- */

void submit_content_init(struct submit_content *c, const struct conf *conf)
{
    *c = (struct submit_content){ .conf = conf };
    smtp_header_init(&c->header, NULL, 0);
}

static void end_line(struct submit_content *c, struct buf *out)
{
    buf_add(out, STR("\r\n"));
    c->line_bytes = 0;
}

/* The octets up to the next line end or NUL. */
static int add_text(struct submit_content *c, struct str text, struct buf *out, struct err *err)
{
    for (size_t i = 0; i < text.n && !c->high; i++)
        c->high = (text.p[i] & 0x80) != 0;
    buf_add(out, text);
    c->line_bytes += text.n;
    if (c->line_bytes + 2 > c->conf->text_line_max)
        return err_set(err, ERR_LIMIT, "the message has a line of more than %llu octets (text_line_max)",
                       (unsigned long long)c->conf->text_line_max);
    return 0;
}

static int look_at(struct submit_content *c, struct str added, struct err *err)
{
    c->bytes += added.n;
    if (c->bytes > c->conf->max_message_size)
        return err_set(err, ERR_LIMIT, "the message is larger than %llu octets (max_message_size)",
                       (unsigned long long)c->conf->max_message_size);
    while (added.n && !c->header.done) {
        size_t used = 0;
        smtp_header_feed(&c->header, added, &used);
        added = str_skip(added, used);
    }
    if (c->header.n_received > c->conf->max_hops)
        return err_set(err, ERR_LIMIT, "the message has more than %u Received headers: it is going in a circle (max_hops)",
                       (unsigned)c->conf->max_hops);
    return 0;
}

int submit_content_add(struct submit_content *c, struct str in, struct buf *out, struct err *err)
{
    size_t begin = out->n;
    while (in.n) {
        if (c->cr && in.p[0] == '\n') { /* of a CR that was already answered with CRLF */
            in = str_skip(in, 1);
            c->cr = false;
            continue;
        }
        c->cr = false;
        size_t n = 0;
        while (n < in.n && in.p[n] != '\n' && in.p[n] != '\r' && in.p[n] != 0)
            n++;
        int rc = add_text(c, str_slice(in.p, n), out, err);
        if (rc < 0)
            return rc;
        in = str_skip(in, n);
        if (in.n == 0)
            break;
        if (in.p[0] == 0)
            return err_set(err, ERR_SYNTAX, "the message holds a NUL octet, which mail cannot carry; encode it (base64)");
        c->cr = in.p[0] == '\r';
        end_line(c, out);
        in = str_skip(in, 1);
    }
    if (out->failed)
        return err_set(err, -ENOMEM, "no memory for a message; try again later");
    return look_at(c, str_slice(out->p + begin, out->n - begin), err);
}

int submit_content_end(struct submit_content *c, struct buf *out, struct err *err)
{
    size_t begin = out->n;
    if (c->line_bytes)
        end_line(c, out);
    if (out->failed)
        return err_set(err, -ENOMEM, "no memory for a message; try again later");
    return out->n > begin ? look_at(c, str_slice(out->p + begin, out->n - begin), err) : 0;
}
