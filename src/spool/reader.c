#include "spool/spool.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "spool/record.h"

enum { READER_ARENA_MAX = 1024 * 1024 };

struct spool_reader {
    const struct spool_disk *disk;
    struct arena arena;
    struct spool_record record;
    struct spool_meta meta;
    struct spool_envelope envelope;
    struct str body;      /* in the record */
    int body_fd;
    uint64_t at;          /* octets of the body handed out */
    XXH3_state_t *sum;    /* of a body file, up to `at` */
    unsigned char octets[];
};

static int corrupt(struct err *err, const struct spool_place *place, const char *what)
{
    return err_set(err, ERR_CORRUPT, "segment %llu, offset %u: %s; run postern spool verify",
                   (unsigned long long)place->segment, place->offset, what);
}

static int check_record(struct spool_reader *r, const struct spool_place *place, struct err *err)
{
    if (!spool_record_header(r->octets, place->generation, place->offset, place->offset + (uint64_t)place->length, &r->record) ||
        r->record.length != place->length || r->record.segment != place->segment || r->record.kind != SPOOL_KIND_MESSAGE)
        return corrupt(err, place, "no record of a message stands there");
    if (!spool_record_meta_valid(r->octets, &r->record))
        return corrupt(err, place, "the record's checksum is wrong");
    struct str meta = str_slice(r->octets + SPOOL_RECORD_HEADER_BYTES, r->record.meta_bytes);
    if (!spool_meta_decode(meta, &r->meta))
        return corrupt(err, place, "the record cannot be read");
    int rc = spool_envelope_decode(r->meta.envelope, &r->arena, &r->envelope, err);
    if (rc < 0)
        return rc;
    r->envelope.message_bytes = r->meta.prefix.n + r->meta.body_bytes;
    size_t head = SPOOL_RECORD_HEADER_BYTES + r->record.meta_bytes;
    r->body = str_slice(r->octets + head, r->record.length - head);
    if (r->meta.body_file == 0 && (r->body.n != r->meta.body_bytes || spool_sum(r->body) != r->record.content_sum))
        return corrupt(err, place, "the body's checksum is wrong");
    return 0;
}

static int check_body_file(struct spool_reader *r, const struct spool_place *place, struct err *err)
{
    if (r->meta.body_file == 0)
        return 0;
    if (r->body_fd >= 0 && r->disk->size(r->disk, r->body_fd) != (int64_t)r->meta.body_bytes)
        return corrupt(err, place, "its body file has another size");
    r->sum = XXH3_createState();
    if (!r->sum)
        return err_set(err, -ENOMEM, "no memory to read a message");
    XXH3_64bits_reset(r->sum);
    return 0;
}

int spool_reader_open(const struct spool_disk *disk, int segment_fd, const struct spool_place *place, int body_fd,
                      struct spool_reader **ret_reader, struct err *err)
{
    if (place->length < SPOOL_RECORD_HEADER_BYTES ||
        place->length > SPOOL_RECORD_HEADER_BYTES + SPOOL_META_MAX + SPOOL_BODY_INLINE_MAX)
        return corrupt(err, place, "impossible length");
    struct spool_reader *r = malloc(sizeof(*r) + place->length);
    if (!r)
        return err_set(err, -ENOMEM, "no memory to read a message");
    *r = (struct spool_reader){ .disk = disk, .body_fd = body_fd };
    arena_init(&r->arena, READER_ARENA_MAX);
    int rc = spool_disk_read_all(disk, segment_fd, r->octets, place->length, place->offset);
    if (rc < 0)
        rc = err_errno(err, -rc, "cannot read segment %llu", (unsigned long long)place->segment);
    if (rc >= 0)
        rc = check_record(r, place, err);
    if (rc >= 0)
        rc = check_body_file(r, place, err);
    if (rc < 0) {
        spool_reader_free(&r);
        return rc;
    }
    *ret_reader = r;
    return 0;
}

void spool_reader_free(struct spool_reader **reader)
{
    struct spool_reader *r = *reader;
    *reader = NULL;
    if (!r)
        return;
    arena_done(&r->arena);
    if (r->sum)
        XXH3_freeState(r->sum);
    free(r);
}

uint64_t spool_reader_id(const struct spool_reader *r)
{
    return r->record.id;
}

const struct spool_envelope *spool_reader_envelope(const struct spool_reader *r)
{
    return &r->envelope;
}

uint64_t spool_reader_body_file(const struct spool_reader *r)
{
    return r->meta.body_file;
}

struct str spool_reader_prefix(const struct spool_reader *r)
{
    return r->meta.prefix;
}

uint64_t spool_reader_body_bytes(const struct spool_reader *r)
{
    return r->meta.body_bytes;
}

void spool_reader_record(const struct spool_reader *r, struct str *ret_meta, struct str *ret_content,
                         uint64_t *ret_content_sum)
{
    *ret_meta = str_slice(r->octets + SPOOL_RECORD_HEADER_BYTES, r->record.meta_bytes);
    *ret_content = r->body;
    *ret_content_sum = r->record.content_sum;
}

void spool_reader_rewind(struct spool_reader *r)
{
    r->at = 0;
    if (r->sum)
        XXH3_64bits_reset(r->sum);
}

static ssize_t read_file(struct spool_reader *r, void *p, size_t n, struct err *err)
{
    ssize_t done = r->body_fd < 0 ? -EBADF : r->disk->pread(r->disk, r->body_fd, p, n, (off_t)r->at);
    if (done < 0)
        return err_errno(err, (int)-done, "cannot read body file %llu", (unsigned long long)r->meta.body_file);
    if (done == 0)
        return err_set(err, ERR_CORRUPT, "body file %llu is too short", (unsigned long long)r->meta.body_file);
    XXH3_64bits_update(r->sum, p, (size_t)done);
    if (r->at + (uint64_t)done == r->meta.body_bytes && XXH3_64bits_digest(r->sum) != r->record.content_sum)
        return err_set(err, ERR_CORRUPT, "body file %llu is not what was written", (unsigned long long)r->meta.body_file);
    return done;
}

ssize_t spool_reader_read(struct spool_reader *r, void *p, size_t n, struct err *err)
{
    uint64_t left = r->meta.body_bytes - r->at;
    n = n < left ? n : (size_t)left;
    if (n == 0)
        return 0;
    ssize_t done = (ssize_t)n;
    if (r->meta.body_file)
        done = read_file(r, p, n, err);
    else
        memcpy(p, r->body.p + r->at, n);
    if (done > 0)
        r->at += (uint64_t)done;
    return done;
}
