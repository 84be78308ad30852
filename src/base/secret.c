#include "base/secret.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { SECRET_MAX_BYTES = 64 * 1024 };

struct secret {
    size_t mapped; /* octets of this mapping, header included */
    size_t n;
    char bytes[];
};

struct secret *secret_new(struct str s)
{
    if (s.n > SECRET_MAX_BYTES)
        return NULL;
    /* Pages of its own, because locking and dump exclusion work on whole pages. */
    size_t mapped = (sizeof(struct secret) + s.n + 4095) & ~(size_t)4095;
    struct secret *secret = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (secret == MAP_FAILED)
        return NULL;
    (void)mlock(secret, mapped); /* RLIMIT_MEMLOCK may forbid it: the secret is then only swappable */
    (void)madvise(secret, mapped, MADV_DONTDUMP);
    secret->mapped = mapped;
    secret->n = s.n;
    if (s.n)
        memcpy(secret->bytes, s.p, s.n);
    return secret;
}

void secret_free(struct secret **secret)
{
    if (!*secret)
        return;
    size_t mapped = (*secret)->mapped;
    explicit_bzero(*secret, mapped);
    munmap(*secret, mapped);
    *secret = NULL;
}

struct str secret_bytes(const struct secret *secret)
{
    return secret ? str_slice(secret->bytes, secret->n) : STR_NONE;
}

bool secret_equal(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    unsigned char diff = 0;
    for (size_t i = 0; i < a.n; i++)
        diff = (unsigned char)(diff | (a.p[i] ^ b.p[i]));
    return diff == 0;
}

void secret_wipe(void *p, size_t n)
{
    if (p && n)
        explicit_bzero(p, n);
}
