#include "cli/bench/bench.h"

#include <sys/resource.h>

/* A sample that finds no memory is left out: the count of messages stays right. */
void bench_samples_add(struct bench_samples *s, int64_t us)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 4096;
        uint32_t *v = realloc(s->v, cap * sizeof *v);
        if (!v)
            return;
        s->v = v;
        s->cap = cap;
    }
    int64_t tenths = us < 0 ? 0 : us * 10;
    s->v[s->n++] = tenths > UINT32_MAX ? UINT32_MAX : (uint32_t)tenths;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

void bench_samples_sort(struct bench_samples *s)
{
    if (s->n)
        qsort(s->v, s->n, sizeof *s->v, compare);
}

double bench_samples_percentile(const struct bench_samples *s, unsigned percent)
{
    if (s->n == 0)
        return 0;
    /* Nearest rank: the smallest sample that so many per cent do not exceed. */
    size_t rank = (s->n * percent + 99) / 100;
    return s->v[rank > 0 ? rank - 1 : 0] / 1e4;
}

void bench_tally_error(struct bench_tally *tally, enum smtp_client_stage stage, unsigned code, struct str text)
{
    tally->errors++;
    for (size_t i = 0; i < tally->n_error_kinds; i++) {
        if (tally->error[i].stage == stage && tally->error[i].code == code) {
            tally->error[i].n++;
            return;
        }
    }
    if (tally->n_error_kinds == BENCH_ERROR_KINDS) {
        tally->errors_other++;
        return;
    }
    struct bench_error *e = &tally->error[tally->n_error_kinds++];
    *e = (struct bench_error){ .stage = stage, .code = code, .n = 1 };
    if (text.n >= sizeof e->text)
        text.n = sizeof e->text - 1;
    str_copy(text, e->text, sizeof e->text);
}

void bench_tally_done(struct bench_tally *tally)
{
    free(tally->message.v);
    free(tally->session.v);
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

double bench_cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}
