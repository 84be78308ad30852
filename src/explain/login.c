#include "explain/login.h"

#include "explain/login_words.h"

/* Fills `why`: a placeholder that the table does not know would stand there as it is, so the tests look for one. */
static void fill(struct words_out *out, const char *text, const struct words_view *view,
                 bool (*put)(struct words_out *, struct str, const struct words_view *))
{
    for (; *text; text++) {
        const char *end = *text == '{' ? strchr(text, '}') : NULL;
        if (end && put(out, str_slice(text + 1, (size_t)(end - text - 1)), view))
            text = end;
        else
            words_add(out, str_slice(text, 1));
    }
}

/* As many whole commands as are useful on one line. */
static void fill_run(struct words_out *out, const struct catalog_entry *entry, const struct words_view *view)
{
    enum { COMMANDS = 3 };
    for (size_t i = 0; entry->run[i] && i < COMMANDS; i++) {
        size_t before = out->n;
        words_add(out, str_of(i ? "; " : ""));
        fill(out, entry->run[i], view, words_put_shell);
        if (out->cut) {
            words_cut(out, before);
            return;
        }
    }
}

static void compose(const struct catalog_entry *entry, const char *cause, const struct words_view *view,
                    struct login_words *ret_words)
{
    struct words_out why = { .p = ret_words->why, .size = sizeof ret_words->why };
    struct words_out run = { .p = ret_words->run, .size = sizeof ret_words->run };
    *ret_words = (struct login_words){ .level = CATALOG_NOTICE };
    if (entry && entry->why) {
        ret_words->number = entry->number;
        ret_words->level = entry->level;
        fill(&why, entry->why, view, words_put_sentence);
        fill_run(&run, entry, view);
        return;
    }
    words_add(&why, STR("the login failed for a reason that has no explanation yet: "));
    words_add_peer(&why, str_of(cause), LOGIN_PART_BYTES);
    fill(&why, "{said}{gss}{kdc}", view, words_put_sentence);
}

void login_explain(const struct login_facts *facts, struct login_words *ret_words)
{
    static const char *const events[] = { "auth.reject", "auth.accept", "delivery.login.failed" };
    const struct catalog_entry *entry = NULL;
    for (size_t i = 0; facts->cause && !entry && i < sizeof events / sizeof *events; i++)
        entry = catalog_cause(events[i], str_of(facts->cause));
    compose(entry, facts->cause, &(struct words_view){ .in = facts }, ret_words);
}

void login_explain_outbound(const struct login_outbound_facts *facts, struct login_words *ret_words)
{
    static const char *const events[] = { "delivery.login.failed", "auth.reject" };
    const struct catalog_entry *entry = NULL;
    for (size_t i = 0; facts->cause && !entry && i < sizeof events / sizeof *events; i++)
        entry = catalog_cause(events[i], str_of(facts->cause));
    compose(entry, facts->cause, &(struct words_view){ .out = facts }, ret_words);
}
