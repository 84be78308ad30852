#include "spool/schedule.h"

#include <assert.h>

#include "base/hash.h"

enum {
    POOL_CHUNK_BYTES = 64 * 1024,
    TEXTS_MAX = 65536,
    INDEX_MIN = 1024,
    HOPS_INDEX = 4096,
};

/* Objects of one size, given back to a list: no overhead of malloc for a million of them. */
struct pool {
    size_t object_bytes;
    void *free_list;
    void *chunks;
};

struct heap {
    struct spool_timed **node; /* from 1 */
    uint32_t n, cap;
};

struct spool_schedule {
    struct pool entries, parts;
    struct heap waiting, resting;     /* parts; hops */
    struct spool_entry **index;
    size_t index_n, n_entries;
    struct spool_hop *hops[HOPS_INDEX];
    TAILQ_HEAD(, spool_hop) runnable;
    size_t n_parts[3];
    struct text **text;               /* by place */
    struct text *texts;
    uint32_t texts_made;
    size_t n_hops;
};

struct text {
    UT_hash_handle hh;
    uint32_t number;                  /* place in the low 16 bits, how often that was taken above */
    uint32_t n;
    char p[];
};

/* ---- memory ---- */

static void *pool_get(struct pool *pool)
{
    if (!pool->free_list) {
        char *chunk = malloc(POOL_CHUNK_BYTES);
        if (!chunk)
            return NULL;
        *(void **)chunk = pool->chunks;
        pool->chunks = chunk;
        for (size_t at = 16; at + pool->object_bytes <= POOL_CHUNK_BYTES; at += pool->object_bytes) {
            *(void **)(chunk + at) = pool->free_list;
            pool->free_list = chunk + at;
        }
    }
    void *object = pool->free_list;
    pool->free_list = *(void **)object;
    memset(object, 0, pool->object_bytes);
    return object;
}

static void pool_put(struct pool *pool, void *object)
{
    *(void **)object = pool->free_list;
    pool->free_list = object;
}

static void pool_done(struct pool *pool)
{
    while (pool->chunks) {
        void *next = *(void **)pool->chunks;
        free(pool->chunks);
        pool->chunks = next;
    }
}

/* ---- heap ---- */

static void heap_place(struct heap *h, uint32_t i, struct spool_timed *node)
{
    h->node[i] = node;
    node->index = i;
}

static void heap_up(struct heap *h, uint32_t i, struct spool_timed *node)
{
    while (i > 1 && h->node[i / 2]->at_ms > node->at_ms) {
        heap_place(h, i, h->node[i / 2]);
        i /= 2;
    }
    heap_place(h, i, node);
}

static void heap_down(struct heap *h, uint32_t i, struct spool_timed *node)
{
    for (;;) {
        uint32_t child = 2 * i;
        if (child > h->n)
            break;
        if (child < h->n && h->node[child + 1]->at_ms < h->node[child]->at_ms)
            child++;
        if (h->node[child]->at_ms >= node->at_ms)
            break;
        heap_place(h, i, h->node[child]);
        i = child;
    }
    heap_place(h, i, node);
}

/* Room for one more node is made when a part or hop is made, so that putting it in later cannot fail. */
static bool heap_reserve(struct heap *h, size_t nodes)
{
    if (nodes + 1 < h->cap)
        return true;
    uint32_t cap = h->cap ? h->cap + h->cap / 2 : 256;
    struct spool_timed **node = realloc(h->node, cap * sizeof(*node));
    if (!node)
        return false;
    h->node = node;
    h->cap = cap;
    return true;
}

static void heap_remove(struct heap *h, struct spool_timed *node)
{
    uint32_t i = node->index;
    if (i == 0)
        return;
    struct spool_timed *last = h->node[h->n--];
    node->index = 0;
    if (last == node)
        return;
    if (i > 1 && h->node[i / 2]->at_ms > last->at_ms)
        heap_up(h, i, last);
    else
        heap_down(h, i, last);
}

static void heap_set(struct heap *h, struct spool_timed *node, int64_t at_ms)
{
    heap_remove(h, node);
    node->at_ms = at_ms;
    heap_up(h, ++h->n, node);
}

/* ---- entries ---- */

struct spool_schedule *spool_schedule_new(void)
{
    struct spool_schedule *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->entries.object_bytes = sizeof(struct spool_entry);
    s->parts.object_bytes = sizeof(struct spool_part);
    TAILQ_INIT(&s->runnable);
    s->index_n = INDEX_MIN;
    s->index = calloc(s->index_n, sizeof(struct spool_entry *));
    s->text = calloc(TEXTS_MAX, sizeof(struct text *));
    if (!s->index || !s->text)
        spool_schedule_free(&s);
    return s;
}

void spool_schedule_free(struct spool_schedule **schedule)
{
    struct spool_schedule *s = *schedule;
    *schedule = NULL;
    if (!s)
        return;
    for (size_t i = 0; s->index && i < s->index_n; i++) {
        for (struct spool_entry *e = s->index[i]; e; e = e->next_in_index) {
            for (struct spool_part *p = e->parts; p; p = p->next)
                free(p->recipients);
        }
    }
    for (size_t i = 0; i < HOPS_INDEX; i++) {
        while (s->hops[i]) {
            struct spool_hop *next = s->hops[i]->next_in_index;
            free(s->hops[i]->key);
            free(s->hops[i]);
            s->hops[i] = next;
        }
    }
    HASH_CLEAR(hh, s->texts);
    for (uint32_t i = 0; s->text && i < TEXTS_MAX; i++)
        free(s->text[i]);
    free(s->text);
    pool_done(&s->entries);
    pool_done(&s->parts);
    free(s->waiting.node);
    free(s->resting.node);
    free(s->index);
    free(s);
}

static size_t id_slot(const struct spool_schedule *s, uint64_t id)
{
    return (size_t)(id * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (s->index_n - 1);
}

struct spool_entry *spool_schedule_find(const struct spool_schedule *s, uint64_t id)
{
    struct spool_entry *e = s->index[id_slot(s, id)];
    while (e && e->id != id)
        e = e->next_in_index;
    return e;
}

/* Doubling at an average chain of two keeps the index at 4 to 8 octets an entry. */
static void index_grow(struct spool_schedule *s)
{
    struct spool_entry **old = s->index, **grown = calloc(s->index_n * 2, sizeof(struct spool_entry *));
    size_t old_n = s->index_n;
    if (!grown)
        return;
    s->index = grown;
    s->index_n *= 2;
    for (size_t i = 0; i < old_n; i++) {
        for (struct spool_entry *e = old[i], *next; e; e = next) {
            next = e->next_in_index;
            size_t slot = id_slot(s, e->id);
            e->next_in_index = grown[slot];
            grown[slot] = e;
        }
    }
    free(old);
}

struct spool_entry *spool_schedule_add(struct spool_schedule *s, uint64_t id)
{
    if (spool_schedule_find(s, id))
        return NULL;
    if (s->n_entries >= 2 * s->index_n)
        index_grow(s);
    struct spool_entry *e = pool_get(&s->entries);
    if (!e)
        return NULL;
    e->id = id;
    size_t slot = id_slot(s, id);
    e->next_in_index = s->index[slot];
    s->index[slot] = e;
    s->n_entries++;
    return e;
}

void spool_schedule_remove(struct spool_schedule *s, struct spool_entry *entry)
{
    while (entry->parts)
        spool_schedule_drop_part(s, entry->parts);
    struct spool_entry **at = &s->index[id_slot(s, entry->id)];
    while (*at != entry)
        at = &(*at)->next_in_index;
    *at = entry->next_in_index;
    s->n_entries--;
    pool_put(&s->entries, entry);
}

size_t spool_schedule_entries(const struct spool_schedule *s)
{
    return s->n_entries;
}

size_t spool_schedule_parts(const struct spool_schedule *s, enum spool_part_state state)
{
    return s->n_parts[state];
}

struct spool_entry *spool_schedule_walk(const struct spool_schedule *s, size_t *cursor, struct spool_entry *last)
{
    struct spool_entry *next = last ? last->next_in_index : NULL;
    while (!next && *cursor < s->index_n)
        next = s->index[(*cursor)++];
    return next;
}

/* ---- hops ---- */

static uint32_t text_hash(struct str a, struct str b)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < a.n; i++)
        h = (h ^ (unsigned char)a.p[i]) * 16777619u;
    for (size_t i = 0; i < b.n; i++)
        h = (h ^ (unsigned char)b.p[i]) * 16777619u;
    return h;
}

struct spool_hop *spool_schedule_hop(struct spool_schedule *s, struct str block, struct str domain)
{
    struct spool_hop **slot = &s->hops[text_hash(block, domain) % HOPS_INDEX];
    for (struct spool_hop *h = *slot; h; h = h->next_in_index) {
        if (str_eq(h->block, block) && str_eq(h->domain, domain))
            return h;
    }
    struct spool_hop *h = calloc(1, sizeof(*h));
    char *key = malloc(block.n + domain.n + 1);
    if (!h || !key || !heap_reserve(&s->resting, s->n_hops + 1)) {
        free(h);
        free(key);
        return NULL;
    }
    memcpy(key, block.n ? block.p : "", block.n);
    memcpy(key + block.n, domain.n ? domain.p : "", domain.n);
    h->key = key;
    h->block = str_slice(key, block.n);
    h->domain = str_slice(key + block.n, domain.n);
    h->window = 1;
    h->block_index = -1;
    TAILQ_INIT(&h->ready);
    h->next_in_index = *slot;
    *slot = h;
    s->n_hops++;
    return h;
}

static void hop_check(struct spool_schedule *s, struct spool_hop *h)
{
    bool runnable = !TAILQ_EMPTY(&h->ready) && h->timed.index == 0 && h->n_active < h->window;
    if (runnable == h->is_runnable)
        return;
    h->is_runnable = runnable;
    if (runnable)
        TAILQ_INSERT_TAIL(&s->runnable, h, runnable);
    else
        TAILQ_REMOVE(&s->runnable, h, runnable);
}

/* A hop without parts is forgotten, unless it is still left alone after a failure. */
static void hop_unuse(struct spool_schedule *s, struct spool_hop *h)
{
    if (h->n_parts || h->timed.index)
        return;
    struct spool_hop **at = &s->hops[text_hash(h->block, h->domain) % HOPS_INDEX];
    while (*at != h)
        at = &(*at)->next_in_index;
    *at = h->next_in_index;
    s->n_hops--;
    free(h->key);
    free(h);
}

struct spool_hop *spool_schedule_hop_walk(const struct spool_schedule *s, size_t *cursor, struct spool_hop *last)
{
    struct spool_hop *next = last ? last->next_in_index : NULL;
    while (!next && *cursor < HOPS_INDEX)
        next = s->hops[(*cursor)++];
    return next;
}

void spool_schedule_hop_wait(struct spool_schedule *s, struct spool_hop *h, int64_t at_ms)
{
    heap_remove(&s->resting, &h->timed);
    if (at_ms)
        heap_set(&s->resting, &h->timed, at_ms);
    hop_check(s, h);
}

void spool_schedule_hop_window(struct spool_schedule *s, struct spool_hop *h, uint32_t window)
{
    h->window = window;
    hop_check(s, h);
}

/* ---- parts ---- */

uint16_t spool_part_recipient(const struct spool_part *part, uint16_t i)
{
    return part->recipients ? part->recipients[i] : part->recipient;
}

static bool part_add(struct spool_part *p, uint16_t recipient)
{
    if (p->n_recipients == 0) {
        p->recipient = recipient;
        p->n_recipients = 1;
        return true;
    }
    unsigned n = p->n_recipients;
    if (!p->recipients || (n & (n - 1)) == 0) { /* capacity: the power of two from n up */
        uint16_t *grown = realloc(p->recipients, 2 * n * sizeof(*grown));
        if (!grown)
            return false;
        if (!p->recipients)
            grown[0] = p->recipient;
        p->recipients = grown;
    }
    p->recipients[p->n_recipients++] = recipient;
    return true;
}

struct spool_part *spool_schedule_add_recipient(struct spool_schedule *s, struct spool_entry *entry,
                                                struct spool_hop *hop, uint16_t recipient)
{
    struct spool_part *p = entry->parts;
    while (p && p->hop != hop)
        p = p->next;
    if (p)
        return part_add(p, recipient) ? p : NULL;
    size_t total = s->n_parts[0] + s->n_parts[1] + s->n_parts[2];
    if (!heap_reserve(&s->waiting, total + 1) || !(p = pool_get(&s->parts)))
        return NULL;
    p->entry = entry;
    p->hop = hop;
    p->next = entry->parts;
    entry->parts = p;
    part_add(p, recipient);
    hop->n_parts++;
    s->n_parts[SPOOL_PART_WAITING]++;
    return p;
}

/* Out of heap, list or activity, into WAITING. */
static void part_detach(struct spool_schedule *s, struct spool_part *p)
{
    heap_remove(&s->waiting, &p->timed);
    if (p->state == SPOOL_PART_READY)
        TAILQ_REMOVE(&p->hop->ready, p, ready);
    if (p->state == SPOOL_PART_ACTIVE)
        p->hop->n_active--;
    s->n_parts[p->state]--;
    p->state = SPOOL_PART_WAITING;
    s->n_parts[p->state]++;
    hop_check(s, p->hop);
}

void spool_schedule_drop_part(struct spool_schedule *s, struct spool_part *p)
{
    part_detach(s, p);
    s->n_parts[SPOOL_PART_WAITING]--;
    struct spool_part **at = &p->entry->parts;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    p->hop->n_parts--;
    hop_unuse(s, p->hop);
    free(p->recipients);
    pool_put(&s->parts, p);
}

bool spool_schedule_drop_recipients(struct spool_schedule *s, struct spool_part *p, const uint16_t *recipients, uint16_t n)
{
    uint16_t kept = 0;
    for (uint16_t i = 0; i < p->n_recipients; i++) {
        uint16_t r = spool_part_recipient(p, i);
        bool drop = false;
        for (uint16_t k = 0; k < n && !drop; k++)
            drop = recipients[k] == r;
        if (drop)
            continue;
        if (p->recipients)
            p->recipients[kept] = r;
        kept++;
    }
    if (kept == 0) {
        spool_schedule_drop_part(s, p);
        return true;
    }
    p->n_recipients = kept;
    if (kept == 1 && p->recipients) {
        p->recipient = p->recipients[0];
        free(p->recipients);
        p->recipients = NULL;
    }
    return false;
}

void spool_schedule_wait(struct spool_schedule *s, struct spool_part *p, int64_t at_ms)
{
    part_detach(s, p);
    heap_set(&s->waiting, &p->timed, at_ms);
}

void spool_schedule_park(struct spool_schedule *s, struct spool_part *p)
{
    part_detach(s, p);
}

void spool_schedule_advance(struct spool_schedule *s, int64_t now_ms, size_t max)
{
    while (s->resting.n && s->resting.node[1]->at_ms <= now_ms) {
        struct spool_hop *h = (struct spool_hop *)s->resting.node[1];
        heap_remove(&s->resting, &h->timed);
        hop_check(s, h);
        hop_unuse(s, h);
    }
    for (size_t n = 0; s->waiting.n && s->waiting.node[1]->at_ms <= now_ms && (max == 0 || n < max); n++) {
        struct spool_part *p = (struct spool_part *)s->waiting.node[1];
        part_detach(s, p);
        s->n_parts[p->state]--;
        p->state = SPOOL_PART_READY;
        s->n_parts[p->state]++;
        TAILQ_INSERT_TAIL(&p->hop->ready, p, ready);
        hop_check(s, p->hop);
    }
}

int64_t spool_schedule_next_ms(const struct spool_schedule *s)
{
    int64_t next = s->waiting.n ? s->waiting.node[1]->at_ms : INT64_MAX;
    if (s->resting.n && s->resting.node[1]->at_ms < next)
        next = s->resting.node[1]->at_ms;
    return next;
}

struct spool_part *spool_schedule_take(struct spool_schedule *s)
{
    struct spool_hop *h = TAILQ_FIRST(&s->runnable);
    if (!h)
        return NULL;
    struct spool_part *p = TAILQ_FIRST(&h->ready);
    assert(p);
    TAILQ_REMOVE(&h->ready, p, ready);
    s->n_parts[p->state]--;
    p->state = SPOOL_PART_ACTIVE;
    s->n_parts[p->state]++;
    h->n_active++;
    TAILQ_REMOVE(&s->runnable, h, runnable); /* to the end, if it stays */
    h->is_runnable = false;
    hop_check(s, h);
    return p;
}

/* ---- texts ---- */

uint32_t spool_schedule_text(struct spool_schedule *s, struct str text)
{
    struct text *t = NULL;
    text.n = text.n > SPOOL_TEXT_MAX ? SPOOL_TEXT_MAX : text.n;
    if (text.n == 0)
        return 0;
    HASH_FIND(hh, s->texts, text.p, text.n, t);
    if (t)
        return t->number;
    if (!(t = calloc(1, sizeof(*t) + text.n)))
        return 0;
    memcpy(t->p, text.p, text.n);
    t->n = (uint32_t)text.n;
    t->number = ++s->texts_made;
    t->number += t->number == 0; /* 0 stands for no text */
    s->texts_made = t->number;
    struct text **place = &s->text[t->number % TEXTS_MAX];
    if (*place) {
        HASH_DEL(s->texts, *place);
        free(*place);
    }
    *place = NULL;
    HASH_ADD_KEYPTR(hh, s->texts, t->p, t->n, t);
    if (!hash_has(t)) {
        free(t);
        return 0;
    }
    *place = t;
    return t->number;
}

struct str spool_schedule_text_get(const struct spool_schedule *s, uint32_t text)
{
    const struct text *t = text ? s->text[text % TEXTS_MAX] : NULL;
    return t && t->number == text ? str_slice(t->p, t->n) : STR_NONE;
}
