/* submit: what is asked of a message that a local user hands over (docs/control.md). Pure: no file, no clock; every
 * octet is hostile. Faults are ERR_SYNTAX, ERR_LIMIT or ERR_DENIED, for which the user is told 65 with the sentence in
 * `err`; anything else (-ENOMEM) is 75. */
#pragma once
#include <jansson.h>

#include "base/arena.h"
#include "daemon/queue/queue.h"
#include "daemon/queue/recipients.h"
#include "smtp/header.h"

enum { SUBMIT_LINE_MAX_BYTES = 1 << 20, SUBMIT_CHUNK_BYTES = 64 * 1024 };

/* The line in front of the octets. */
struct submit_request {
    struct str sender;        /* views into the JSON object */
    struct str *recipient;    /* ours */
    size_t n_recipients;
    uint64_t size_bytes;
};
int submit_request_read(const json_t *object, const struct conf *conf, struct submit_request *ret_request,
                        struct err *err);
void submit_request_done(struct submit_request *request);

/* Addresses and routes. The array lies in the arena, its strings are m's or conf's. */
int submit_check_envelope(const struct conf *conf, const struct submit_message *m, struct arena *arena,
                          struct spool_recipient **ret_recipients, bool *ret_utf8, struct err *err);

/* An address in an error's text: short, and nothing that a terminal would obey. */
struct submit_shown {
    char text[80];
};
struct submit_shown submit_shown(struct str address);

/* The content on its way into the spool: line ends become CRLF, whatever they were; NUL, lines, sizes and the number of
 * hops are checked. */
struct submit_content {
    const struct conf *conf;
    struct smtp_header header;
    uint64_t bytes, line_bytes;
    bool cr, high;
};
void submit_content_init(struct submit_content *c, const struct conf *conf);
/* Adds what `in` (at most SUBMIT_CHUNK_BYTES) becomes to `out`; twice as much at most. */
int submit_content_add(struct submit_content *c, struct str in, struct buf *out, struct err *err);
/* The end: adds the last line's end if it is missing. */
int submit_content_end(struct submit_content *c, struct buf *out, struct err *err);
