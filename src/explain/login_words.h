/* login_words: what stands for the placeholders in the catalogue's sentences and commands. Only for login.c.
 *
 * In sentences every placeholder has words for when nothing is known. In commands a value must be a plain word to a
 * shell (`$` and `\` in single quotes); otherwise the placeholder in capitals stays. */
#pragma once
#include "explain/login.h"

/* One of the two is set. */
struct words_view {
    const struct login_facts *in;
    const struct login_outbound_facts *out;
};

/* Text in an array; always ends with NUL; what does not fit is left away. */
struct words_out {
    char *p;
    size_t size, n;
    bool cut;
};

void words_add(struct words_out *out, struct str s);
/* Octets of a peer: at most `max` of them, printable, UTF-8. */
void words_add_peer(struct words_out *out, struct str s, size_t max);
/* Back to `n` octets. */
void words_cut(struct words_out *out, size_t n);

/* False: no such placeholder. */
bool words_put_sentence(struct words_out *out, struct str name, const struct words_view *view);
bool words_put_shell(struct words_out *out, struct str name, const struct words_view *view);
