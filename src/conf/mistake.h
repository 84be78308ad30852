/* mistake: what is wrong with a configuration, all of it at once: where, what, and what would be right.
 *
 * A list owns its texts and holds at most CONF_MISTAKES_MAX of each kind; what comes after is counted, not
 * kept. Warnings stand in the same list, marked: they never keep a configuration from being used. */
#pragma once
#include "base/arena.h"
#include "base/buf.h"
#include "conf/conf.h"

enum { CONF_MISTAKES_MAX = 200 };

struct conf_mistake {
    const char *file;
    unsigned line;     /* 0: the file as a whole */
    const char *name;  /* the option or block; NULL: none in particular */
    const char *text;  /* what is wrong */
    const char *hint;  /* what would be right; NULL: nothing to add */
    bool warning;
};

struct conf_mistakes {
    struct arena arena;
    struct conf_mistake *item; /* in the order of files and lines once loading has ended */
    size_t n;
    size_t n_errors, n_warnings; /* all that were found, kept or not */
    bool out_of_memory;
};

void conf_mistakes_init(struct conf_mistakes *m);
void conf_mistakes_done(struct conf_mistakes *m);

/* `hint` may be NULL; the text is copied, cut after 400 octets, and freed of control characters. */
void conf_mistake_add(struct conf_mistakes *m, struct conf_place place, const char *name, const char *hint,
                      const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void conf_warning_add(struct conf_mistakes *m, struct conf_place place, const char *name, const char *hint,
                      const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* "FILE:LINE: what is wrong, what would be right" without a line end ("FILE:LINE: warning: …"). */
void conf_mistake_print(const struct conf_mistake *mistake, struct buf *into);
/* All mistakes, or all warnings, one a line. */
void conf_mistakes_print(const struct conf_mistakes *m, bool warnings, struct buf *into);
/* {"file","mistakes":[{"file","line","name","text","hint"}]}, with "warnings" in the same shape. False: no memory. */
bool conf_mistakes_json(const struct conf_mistakes *m, const char *file, struct buf *into);

/* The one of `names` (ends with NULL) that is nearest to `name` and near enough to be meant; NULL: none is. */
const char *conf_nearest(struct str name, const char *const *names);
