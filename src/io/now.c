#include "io/now.h"

#include <assert.h>
#include <sys/random.h>
#include <time.h>

static int64_t read_us(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t now_mono_ms(void)
{
    return read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t now_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t now_wall_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000;
}

void now_random(void *p, unsigned n)
{
    unsigned char *at = p;
    while (n) {
        ssize_t got = getrandom(at, n, 0);
        if (got > 0) {
            at += got;
            n -= (unsigned)got;
        }
    }
}
