#include "daemon/shared.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/now.h"

enum { SLOTS = 16384, TRIES = 8, SPINS_MAX = 200000 };

struct slot {
    atomic_uint lock;
    unsigned char key[16];
    uint16_t count[SHARED_PROCESSES_MAX]; /* open sessions, by process */
};

struct table {
    uint64_t hash_key;
    atomic_uint sessions[SHARED_PROCESSES_MAX];
    struct slot slot[SLOTS];
};

struct shared {
    struct table *table;
    unsigned index;
};

int shared_create(void)
{
    int fd = memfd_create("postern-shared", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    uint64_t key;
    now_random(&key, sizeof key);
    if (ftruncate(fd, sizeof(struct table)) != 0 || pwrite(fd, &key, sizeof key, 0) != (ssize_t)sizeof key) {
        int saved = errno;
        close(fd);
        return -saved;
    }
    return fd;
}

struct shared *shared_map(int fd, unsigned index)
{
    struct shared *shared = index < SHARED_PROCESSES_MAX ? calloc(1, sizeof *shared) : NULL;
    if (!shared) {
        errno = ENOMEM;
        return NULL;
    }
    shared->table = mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared->table == MAP_FAILED) {
        free(shared);
        return NULL;
    }
    shared->index = index;
    if (atomic_exchange(&shared->table->sessions[index], 0) != 0)
        for (size_t i = 0; i < SLOTS; i++)
            shared->table->slot[i].count[index] = 0;
    return shared;
}

struct shared *shared_map_to_look(int fd)
{
    struct shared *shared = calloc(1, sizeof *shared);
    if (!shared)
        return NULL;
    shared->table = mmap(NULL, sizeof(struct table), PROT_READ, MAP_SHARED, fd, 0);
    if (shared->table == MAP_FAILED) {
        free(shared);
        return NULL;
    }
    return shared;
}

void shared_unmap(struct shared **shared)
{
    if (!*shared)
        return;
    munmap((*shared)->table, sizeof(struct table));
    free(*shared);
    *shared = NULL;
}

static void lock_slot(struct slot *slot)
{
    for (unsigned spins = 0; atomic_exchange_explicit(&slot->lock, 1, memory_order_acquire); spins++) {
        if (spins > SPINS_MAX)
            return; /* its holder is dead: nobody holds it this long */
        if (spins % 64 == 63)
            sched_yield(); /* it may only be off its processor */
    }
}

static void unlock_slot(struct slot *slot)
{
    atomic_store_explicit(&slot->lock, 0, memory_order_release);
}

static uint32_t slot_count(const struct slot *slot)
{
    uint32_t n = 0;
    for (size_t i = 0; i < SHARED_PROCESSES_MAX; i++)
        n += slot->count[i];
    return n;
}

static uint64_t hash_address(const struct table *table, const unsigned char key[16])
{
    uint64_t h = table->hash_key;
    for (size_t i = 0; i < 16; i += 8) {
        uint64_t v;
        memcpy(&v, key + i, sizeof v);
        /* The octets that differ are the last ones, so the highest bits: they must reach the lowest (murmur3's end). */
        h ^= v;
        h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
        h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
        h ^= h >> 33;
    }
    return h;
}

uint32_t shared_sessions(const struct shared *shared)
{
    uint32_t n = 0;
    for (size_t i = 0; i < SHARED_PROCESSES_MAX; i++)
        n += atomic_load_explicit(&shared->table->sessions[i], memory_order_relaxed);
    return n;
}

enum limit_session shared_session_begin(struct shared *shared, const struct conf *conf,
                                        const unsigned char address[16], int *ret_slot)
{
    struct table *table = shared->table;
    unsigned char key[16];
    limit_key(address, key);
    uint64_t h = hash_address(table, key);
    enum limit_session verdict = limit_session(conf, 0, shared_sessions(shared));
    *ret_slot = -1;
    /* First where the address is counted already; then where there is room for it. */
    for (unsigned i = 0; i < 2 * TRIES && verdict == LIMIT_SESSION_OK; i++) {
        size_t at = (size_t)(h + i % TRIES) % SLOTS;
        struct slot *slot = &table->slot[at];
        lock_slot(slot);
        uint32_t of_address = slot_count(slot);
        bool known = of_address && memcmp(slot->key, key, sizeof key) == 0;
        bool ours = known || (i >= TRIES && of_address == 0);
        if (ours) {
            verdict = limit_session(conf, of_address, 0);
            if (verdict == LIMIT_SESSION_OK && slot->count[shared->index] < UINT16_MAX) {
                memcpy(slot->key, key, sizeof key);
                slot->count[shared->index]++;
                *ret_slot = (int)at;
            }
        }
        unlock_slot(slot);
        if (ours)
            break;
    }
    if (verdict == LIMIT_SESSION_OK)
        atomic_fetch_add_explicit(&table->sessions[shared->index], 1, memory_order_relaxed);
    return verdict;
}

void shared_session_end(struct shared *shared, int slot_index)
{
    struct table *table = shared->table;
    atomic_fetch_sub_explicit(&table->sessions[shared->index], 1, memory_order_relaxed);
    if (slot_index < 0)
        return;
    struct slot *slot = &table->slot[slot_index];
    lock_slot(slot);
    if (slot->count[shared->index])
        slot->count[shared->index]--;
    unlock_slot(slot);
}
