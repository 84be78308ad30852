/* model_disk: a disk in memory that keeps every call, and makes from them what could be on a real one had the machine
 * stopped after any of them: what was synced is there; of what was not, any sectors, in any order, or none; a name
 * that was made or removed since its folder was last synced, perhaps.
 *
 * A sector of 512 octets is written whole or not at all, as disks promise. */
#pragma once
#include <stdbool.h>

#include "spool/disk.h"

enum { MODEL_FILES = 512, MODEL_FDS = 1024, MODEL_JOBS = 256, MODEL_SECTOR = 512 };

enum model_op_kind { MODEL_WRITE, MODEL_SYNC, MODEL_TRUNCATE, MODEL_CREATE, MODEL_UNLINK, MODEL_SYNC_FOLDER };
struct model_op {
    enum model_op_kind kind;
    int file;              /* index; MODEL_SYNC_FOLDER: none */
    char folder[16];
    size_t offset, n;
    unsigned char *data;
};

struct model_file {
    char name[64];
    bool exists;
    unsigned char *data;
    size_t size, cap;
};

struct model_disk {
    struct spool_disk disk;
    struct model_file file[MODEL_FILES];
    int n_files;
    int fd[MODEL_FDS];     /* file index + 1 */
    struct model_op *op;
    size_t n_ops, cap_ops;
    struct worker_job *job[MODEL_JOBS];
    struct worker_pool *job_pool[MODEL_JOBS];
    int n_jobs;
    bool recording;
    int fail_syncs;        /* so many of the next ones give EIO */
    uint64_t random;
};

void model_disk_init(struct model_disk *m, uint64_t seed, bool recording);
void model_disk_done(struct model_disk *m);
uint64_t model_random(struct model_disk *m, uint64_t below);
/* Runs one job that waits (the first of a random pool) and its end; false: none waits. */
bool model_run_job(struct model_disk *m);

/* The disk after the first `n` operations of `of`. Keeps its place, so `n` must not fall. */
/* TORN: the sectors as with SOME, and blocks of 4 KiB that an unsynced write touched may hold anything. The first block of
 * a segment is left out: its header is one sector, the rest of it never changes. */
enum model_fate { MODEL_NOTHING, MODEL_EVERYTHING, MODEL_SOME, MODEL_TORN };
struct model_replay {
    const struct model_disk *of;
    size_t n;
    struct model_file durable[MODEL_FILES];
    bool name_synced[MODEL_FILES];
    size_t synced_at[MODEL_FILES];     /* operations before this are durable in the file */
};
void model_replay_init(struct model_replay *r, const struct model_disk *of);
void model_replay_to(struct model_replay *r, size_t n);
void model_replay_image(const struct model_replay *r, enum model_fate fate, uint64_t seed, struct model_disk *ret_image);
void model_replay_done(struct model_replay *r);
