/* control: what control.c (conversations on the control socket) and answer.c (what the verbs do) know of each other. */
#pragma once
#include <jansson.h>

#include "daemon/queue/queue.h"
#include "daemon/queue/submit.h"

struct answer_walk;
struct handed_over;

enum conversation_state {
    CONVERSATION_LINE,     /* the request is being read */
    CONVERSATION_CONTENT,  /* the octets behind a submit request */
    CONVERSATION_WALK,     /* answer.c goes through the queue, a few messages a turn */
    CONVERSATION_WAIT,     /* for the spool or for master */
    CONVERSATION_END,      /* the answer is complete and on its way */
};

struct conversation {
    LIST_ENTRY(conversation) entry;
    struct control *control;
    struct queue *queue;
    int fd;
    unsigned uid;
    bool admin;                      /* root, or who the queue runs as */
    enum conversation_state state;
    struct loop_fd *watch;
    struct loop_timer *deadline;
    int64_t begun_ms;
    struct buf in, out;
    size_t looked;                   /* octets of `in` that hold no line end */
    json_t *request_json;            /* while the content of a submit comes */
    struct submit_request request;
    struct recipients_question *question; /* whether the recipients of a submit exist */
    struct handed_over *handed_over; /* a message that the spool has not answered for yet */
    uint32_t reload_id;              /* 0: none is waited for */
    struct answer_walk *walk;
};

/* ---- control.c: for the verbs ---- */
/* Adds a line; takes the object. NULL (out of memory) ends the conversation. */
void control_say(struct conversation *c, json_t *object);
/* The last line: done, ok and what is in `more` (taken; may be NULL). */
void control_done(struct conversation *c, json_t *more);
void control_refuse(struct conversation *c, int exit_status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* From now on answer_more() is called, until it ends the answer. */
void control_walk(struct conversation *c);
/* Asks master; the answer comes through control_reloaded(). */
void control_reload(struct conversation *c);

/* ---- answer.c ---- */
/* Does what the request asks, or begins a walk. */
void answer_begin(struct conversation *c, const char *verb, json_t *request);
/* Goes on with a walk: a few messages. */
void answer_more(struct conversation *c);
void answer_free(struct answer_walk **walk);
/* Any octets as a JSON text: what is no UTF-8 becomes U+FFFD. */
json_t *answer_text(struct str s);
