/* A load: opens the connections, hands out the right to send, ends when all is sent, when the time is over, when too
 * much fails, or at a signal. Connections are opened and opened again at the end of a turn, never inside their own
 * callbacks. */
#include "cli/bench/bench.h"

#include <signal.h>

#include "io/now.h"

enum { SWEEP_MS = 250, IDLE_UNREADY_MAX = 64 };

bool bench_run_more(const struct bench_run *run)
{
    if (run->stopping)
        return false;
    if (run->o->mode == BENCH_IDLE)
        return run->n_opened < run->o->connections;
    return run->o->duration_ms > 0 || run->tickets < run->o->messages;
}

bool bench_run_take(struct bench_run *run, uint64_t *ret_number)
{
    if (!bench_run_more(run))
        return false;
    *ret_number = run->tickets++;
    return true;
}

static void stop(struct bench_run *run)
{
    run->stopping = true;
}

void bench_run_error(struct bench_run *run, enum smtp_client_stage stage, unsigned code, struct str text)
{
    bench_tally_error(&run->tally, stage, code, text);
    if (run->tally.errors >= run->o->errors_max)
        stop(run);
}

static void close_connections(struct bench_run *run)
{
    for (uint64_t i = 0; i < run->n_opened; i++)
        bench_connection_free(&run->connection[i]);
    run->n_opened = 0;
}

/* Opens what is closed and still has work; a session is counted when it is begun. */
static void open_connections(struct bench_run *run)
{
    const struct bench_options *o = run->o;
    uint64_t number;
    for (uint64_t i = 0; i < o->connections && bench_run_more(run); i++) {
        if (o->mode == BENCH_IDLE && run->n_live - run->tally.ready >= IDLE_UNREADY_MAX)
            return;
        if (i < run->n_opened && run->connection[i]->phase != BENCH_CLOSED)
            continue;
        if (o->mode == BENCH_IDLE && i < run->n_opened)
            continue; /* one that fell is an error, not opened again */
        if (i == run->n_opened) {
            run->connection[i] = bench_connection_new(run);
            if (!run->connection[i]) {
                stop(run);
                return;
            }
            run->n_opened++;
        }
        if (o->mode == BENCH_SESSIONS && !bench_run_take(run, &number))
            return;
        bench_connection_open(run->connection[i]);
    }
}

static void all_idle(struct bench_run *run)
{
    run->idle_reported = true;
    run->tally.wall_us = now_mono_us() - run->begun_us;
    run->tally.cpu_s = bench_cpu_s() - run->begun_cpu_s;
    bench_report_idle(run->o, &run->tally);
    if (run->o->idle_ms > 0)
        loop_timer_set(run->end, (int64_t)run->o->idle_ms);
}

static void on_turn(void *arg)
{
    struct bench_run *run = arg;
    if (run->n_live < run->o->connections && bench_run_more(run))
        open_connections(run);
    bool idle = run->o->mode == BENCH_IDLE;
    if (idle && !run->idle_reported && !bench_run_more(run) && run->tally.ready == run->n_live)
        all_idle(run);
    /* An error ends a load at once; otherwise what is under way is finished. */
    if (run->stopping && (idle || run->tally.errors >= run->o->errors_max))
        close_connections(run);
    if (run->n_live == 0 && !bench_run_more(run))
        loop_stop(run->loop);
}

static void on_sweep(void *arg)
{
    struct bench_run *run = arg;
    int64_t now_ms = loop_now_ms(run->loop);
    for (uint64_t i = 0; i < run->n_opened; i++)
        bench_connection_check_deadline(run->connection[i], now_ms);
    loop_timer_set(run->sweep, SWEEP_MS);
}

static void on_end(void *run)
{
    stop(run);
}

static int prepare(struct bench_run *run)
{
    const struct bench_options *o = run->o;
    struct err *err = &run->err;
    run->connection = calloc((size_t)o->connections, sizeof *run->connection);
    run->scratch = malloc(BENCH_SCRATCH_BYTES);
    if (!run->connection || !run->scratch)
        return err_set(err, -ENOMEM, "out of memory for %llu connections", (unsigned long long)o->connections);
    int rc = bench_content_init(&run->content, o, err);
    if (rc == 0)
        rc = bench_login_prepare(run, err);
    if (rc == 0 && (o->starttls || o->tls))
        rc = tls_client_context_new(STR_NONE, &run->tls, err);
    if (rc == 0)
        rc = loop_new(&run->loop, err);
    if (rc == 0)
        rc = loop_turn_new(run->loop, LOOP_TURN_WORK, on_turn, run, &run->turn, err);
    if (rc == 0)
        rc = loop_timer_new(run->loop, on_sweep, run, &run->sweep, err);
    if (rc == 0)
        rc = loop_timer_new(run->loop, on_end, run, &run->end, err);
    if (rc == 0)
        rc = loop_signal_new(run->loop, SIGINT, on_end, run, &run->interrupt, err);
    if (rc == 0)
        rc = loop_signal_new(run->loop, SIGTERM, on_end, run, &run->terminate, err);
    return rc;
}

static void done(struct bench_run *run)
{
    if (run->connection)
        close_connections(run);
    loop_signal_free(&run->interrupt);
    loop_signal_free(&run->terminate);
    loop_timer_free(&run->sweep);
    loop_timer_free(&run->end);
    loop_turn_free(&run->turn);
    loop_free(&run->loop);
    tls_client_context_unref(&run->tls);
    bench_kerberos_free(&run->kerberos);
    secret_wipe(&run->scram, sizeof run->scram);
    bench_content_done(&run->content);
    bench_tally_done(&run->tally);
    free(run->connection);
    free(run->scratch);
}

static int conclude(struct bench_run *run)
{
    run->tally.wall_us = now_mono_us() - run->begun_us;
    run->tally.cpu_s = bench_cpu_s() - run->begun_cpu_s;
    bench_samples_sort(&run->tally.message);
    bench_samples_sort(&run->tally.session);
    int status = run->o->mode == BENCH_IDLE ? CLI_OK : bench_report(run->o, &run->tally);
    return status == CLI_OK && run->tally.errors > 0 ? CLI_NO : status;
}

int bench_run(const struct bench_options *o)
{
    struct bench_run run = { .o = o };
    int status;
    if (prepare(&run) < 0) {
        status = cli_fail(CLI_SYSTEM, "%s", err_text(&run.err));
    } else {
        run.begun_us = now_mono_us();
        run.begun_cpu_s = bench_cpu_s();
        loop_timer_set(run.sweep, SWEEP_MS);
        if (o->mode != BENCH_IDLE && o->duration_ms > 0)
            loop_timer_set(run.end, (int64_t)o->duration_ms);
        loop_run(run.loop);
        status = conclude(&run);
    }
    done(&run);
    return status;
}
