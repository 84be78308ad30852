#include "spool/page.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(sizeof(struct spool_page) <= SPOOL_PAGE_BYTES, "a page is one page");

int spool_page_create(void)
{
    int fd = memfd_create("spool-page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    /* Neither side can shrink it under the other, which would be SIGBUS. */
    if (ftruncate(fd, SPOOL_PAGE_BYTES) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int saved = -errno;
        close(fd);
        return saved;
    }
    return fd;
}

struct spool_page *spool_page_map(int fd)
{
    void *p = mmap(NULL, SPOOL_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

void spool_page_unmap(struct spool_page *page)
{
    if (page)
        munmap(page, SPOOL_PAGE_BYTES);
}

bool spool_page_publish(struct spool_page *page, uint64_t segment, uint64_t durable)
{
    unsigned slot = (unsigned)(segment % SPOOL_PAGE_SLOTS);
    for (unsigned i = 0; i < SPOOL_PAGE_SLOTS; i++) {
        if (atomic_load(&page->slot[i].segment) == segment)
            slot = i;
    }
    if (atomic_load(&page->slot[slot].segment) != segment) {
        /* Numbers of one writer are not dense, so the oldest gives way, not the one that hashes alike. */
        for (unsigned i = 0; i < SPOOL_PAGE_SLOTS; i++) {
            if (atomic_load(&page->slot[i].segment) < atomic_load(&page->slot[slot].segment))
                slot = i;
        }
        atomic_store(&page->slot[slot].segment, 0);
        atomic_store(&page->slot[slot].durable, durable);
        atomic_store(&page->slot[slot].segment, segment);
    } else {
        atomic_store(&page->slot[slot].durable, durable);
    }
    return atomic_load(&page->bell_wanted) != 0;
}

bool spool_page_durable(const struct spool_page *page, uint64_t segment, uint64_t *ret_durable)
{
    for (unsigned i = 0; i < SPOOL_PAGE_SLOTS; i++) {
        if (atomic_load(&page->slot[i].segment) != segment)
            continue;
        uint64_t durable = atomic_load(&page->slot[i].durable);
        if (atomic_load(&page->slot[i].segment) == segment) {
            *ret_durable = durable;
            return true;
        }
    }
    return false;
}
