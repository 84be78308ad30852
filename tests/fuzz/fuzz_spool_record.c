/* Whatever stands in a segment, a journal or an envelope: reading it ends, within bounds. The first octet chooses: raw
 * octets as a segment, octets repaired into a valid record (so that what lies behind the checksums is reached), an
 * envelope, a file header. */
#include <sys/uio.h>

#include "spool/record.h"
#include "spool/scan.h"
#include "spool/spool.h"

#define GENERATION UINT64_C(0x0123456789abcdef)

static const uint8_t *image;
static size_t image_bytes;

static ssize_t image_pread(const struct spool_disk *disk, int fd, void *p, size_t n, off_t offset)
{
    if ((size_t)offset >= image_bytes)
        return 0;
    n = n < image_bytes - (size_t)offset ? n : image_bytes - (size_t)offset;
    memcpy(p, image + offset, n);
    return (ssize_t)n;
}

static int64_t image_size(const struct spool_disk *disk, int fd)
{
    return (int64_t)image_bytes;
}

static const struct spool_disk disk = { .pread = image_pread, .size = image_size };

static int on_record(void *arg, const struct spool_record *record, struct str meta, struct str content)
{
    struct spool_place place = { 7, GENERATION, record->offset, record->length };
    struct spool_reader *reader;
    char block[512];
    if (spool_reader_open(&disk, 3, &place, 3, &reader, NULL) < 0)
        return 0;
    while (spool_reader_read(reader, block, sizeof(block), NULL) > 0)
        ;
    spool_reader_free(&reader);
    return 0;
}

static void scan(const uint8_t *data, size_t n)
{
    struct spool_scan s;
    image = data;
    image_bytes = n;
    spool_scan_init(&s, &disk, 3, 7, GENERATION, SPOOL_BLOCK_BYTES);
    spool_scan_to(&s, n / 2, on_record, NULL, NULL);
    spool_scan_to(&s, n, on_record, NULL, NULL);
    spool_scan_finish(&s, n / 3);
    for (unsigned i = 0; i < s.n_damages; i++) {
        if (s.damage[i].to < s.damage[i].from)
            __builtin_trap();
    }
    spool_scan_done(&s);
}

static void envelope(struct str octets)
{
    struct arena arena;
    struct spool_envelope e;
    struct buf again;
    arena_init(&arena, 8 << 20);
    buf_init(&again, 1 << 24);
    if (spool_envelope_decode(octets, &arena, &e, NULL) == 0) {
        /* What was read is what would have been written. */
        if (!spool_envelope_encode(&e, &again) || !str_eq(buf_str(&again), octets))
            __builtin_trap();
    }
    buf_done(&again);
    arena_done(&arena);
}

/* data = 2 octets: length of meta, then meta, then content. */
static void repaired(const uint8_t *data, size_t n)
{
    static uint8_t segment[SPOOL_BLOCK_BYTES + SPOOL_RECORD_HEADER_BYTES + 70000];
    if (n < 2 || n > 66000)
        return;
    size_t meta_n = (size_t)(data[0] | data[1] << 8);
    data += 2;
    n -= 2;
    meta_n = meta_n < n ? meta_n : n;
    struct str meta = str_slice(data, meta_n), content = str_slice(data + meta_n, n - meta_n);
    struct spool_record r = { .kind = SPOOL_KIND_MESSAGE, .id = 1, .segment = 7, .generation = GENERATION,
        .length = (uint32_t)(SPOOL_RECORD_HEADER_BYTES + n), .meta_bytes = (uint32_t)meta_n, .offset = SPOOL_BLOCK_BYTES,
        .previous_end = SPOOL_BLOCK_BYTES, .content_sum = spool_sum(content) };
    spool_record_encode(&r, meta, segment + SPOOL_BLOCK_BYTES);
    memcpy(segment + SPOOL_BLOCK_BYTES + SPOOL_RECORD_HEADER_BYTES, data, n);
    scan(segment, SPOOL_BLOCK_BYTES + SPOOL_RECORD_HEADER_BYTES + n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct spool_file_header header;
    struct spool_meta meta;
    if (n == 0)
        return 0;
    struct str rest = str_slice(data + 1, n - 1);
    switch (data[0] & 3) {
    case 0: scan(data + 1, n - 1); break;
    case 1: repaired(data + 1, n - 1); break;
    case 2: envelope(rest); break;
    default:
        (void)spool_file_header_decode(data + 1, n - 1, &header);
        (void)spool_meta_decode(rest, &meta);
        break;
    }
    return 0;
}
