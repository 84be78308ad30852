/* Which process hangs, and which changes need a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/master/restart.h"
#include "daemon/master/watch.h"

static void one_that_answers_never_hangs(void **state)
{
    (void)state;
    struct watch w = { 0 };
    bool hangs;
    for (int i = 0; i < 100; i++) {
        uint32_t question = watch_ask(&w, false, &hangs);
        assert_false(hangs);
        watch_answered(&w, question);
    }
}

static void slow_answers_are_answers(void **state)
{
    (void)state;
    struct watch w = { 0 };
    bool hangs;
    uint32_t before = watch_ask(&w, false, &hangs);
    for (int i = 0; i < 100; i++) { /* always one question behind */
        uint32_t question = watch_ask(&w, false, &hangs);
        assert_false(hangs);
        watch_answered(&w, before);
        before = question;
    }
}

static void silence_is_noticed_after_six_questions(void **state)
{
    (void)state;
    struct watch w = { 0 };
    bool hangs = false;
    unsigned asked = 0;
    while (!hangs && asked < 100) {
        watch_ask(&w, false, &hangs);
        asked++;
    }
    assert_int_equal(asked, WATCH_QUESTIONS + 1); /* the first is open for a while before it is missed */
}

/* All was stopped, master too: its next question comes late, and what was missed counts no more. */
static void when_master_was_stopped_nobody_hangs(void **state)
{
    (void)state;
    struct watch w = { 0 };
    bool hangs;
    for (int i = 0; i < 100; i++) {
        watch_ask(&w, i % WATCH_QUESTIONS == WATCH_QUESTIONS - 1, &hangs);
        assert_false(hangs);
    }
    assert_true(watch_is_late(60000, WATCH_EVERY_MS));
    assert_false(watch_is_late(WATCH_EVERY_MS + 1000, WATCH_EVERY_MS));
}

static void what_needs_a_restart(void **state)
{
    (void)state;
    struct conf started = { .spool = "/spool", .log = "stderr", .log_format = "text",
                            .segment_size = 4 << 20 };
    struct conf now = started;
    struct buf lines;
    buf_init(&lines, 4096);
    now.max_recipients = 7;
    now.spool = (char[]){ "/spool" }; /* the same text elsewhere */
    assert_int_equal(restart_needed(&started, &now, &lines), 0);
    assert_int_equal(lines.n, 0);
    now.log = "syslog";
    now.segment_size = (uint64_t)8 << 32;
    now.smtpd_processes = 2;
    now.mail_owner = "vmail";
    assert_int_equal(restart_needed(&started, &now, &lines), 4);
    const char *text = buf_cstr(&lines);
    for (size_t i = 0; i < 4; i++)
        assert_non_null(strstr(text, (const char *[]){ "log: ", "segment_size: ", "smtpd_processes: ",
                                                       "mail_owner: " }[i]));
    buf_done(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_answers_never_hangs), cmocka_unit_test(slow_answers_are_answers),
        cmocka_unit_test(silence_is_noticed_after_six_questions),
        cmocka_unit_test(when_master_was_stopped_nobody_hangs),
        cmocka_unit_test(what_needs_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
