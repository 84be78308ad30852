/* check_files: the files that a configuration names: are they there, can they be read, who else can read them. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/secret.h"
#include "cli/check.h"
#include "policy/recipient.h"

struct file {
    const char *option, *path;
    struct conf_place place;
};

/* -1 when it cannot be opened, and noted: absence is a mistake, want of rights a warning unless we are root. */
static int open_file(struct conf_mistakes *mistakes, const struct file *f, struct stat *ret_st)
{
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int why = fd < 0                     ? errno
              : fstat(fd, ret_st) < 0    ? errno
              : S_ISREG(ret_st->st_mode) ? 0
              : S_ISDIR(ret_st->st_mode) ? EISDIR
                                         : 0;
    if (why == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    if (why == EACCES && geteuid() != 0)
        conf_warning_add(mistakes, f->place, f->option, "run this as root",
                         "%s: you may not read %s, so it was not checked", f->option, f->path);
    else
        conf_mistake_add(mistakes, f->place, f->option,
                         why == ENOENT ? "make it, or correct the path" : why == EISDIR ? "name a file" : NULL,
                         "%s: cannot open %s: %s", f->option, f->path, strerror(why));
    return -1;
}

/* A secret that all users of the machine may read is a mistake; the group may have its reasons. */
static void check_mode(struct conf_mistakes *mistakes, const struct file *f, const struct stat *st, const char *what)
{
    if (S_ISREG(st->st_mode) && (st->st_mode & S_IRWXO))
        conf_mistake_add(mistakes, f->place, f->option, "chmod 0600 is enough, root:root is fine",
                         "%s: everybody on this machine may %s %s, which holds %s", f->option,
                         st->st_mode & S_IROTH ? "read" : "use", f->path, what);
}

static bool holds_key(int fd)
{
    char text[65536];
    ssize_t n = pread(fd, text, sizeof text, 0);
    bool found = n > 0 && memmem(text, (size_t)n, "PRIVATE KEY-----", 16);
    secret_wipe(text, sizeof text);
    return found;
}

void cli_check_tls_files(const struct conf *conf, struct conf_mistakes *mistakes)
{
    for (size_t i = 0; i < conf->n_servers; i++) {
        const struct conf_server *server = &conf->server[i];
        struct file files[] = {
            { "certificate", server->certificate, conf_place_of(conf, server->name, "certificate", server->place) },
            { "key", server->key, conf_place_of(conf, server->name, "key", server->place) },
        };
        for (size_t k = 0; k < 2; k++) {
            struct stat st;
            int fd = files[k].path ? open_file(mistakes, &files[k], &st) : -1;
            if (fd < 0)
                continue;
            if (holds_key(fd))
                check_mode(mistakes, &files[k], &st, "a private key");
            else if (k == 1 || !server->key)
                conf_mistake_add(mistakes, files[k].place, files[k].option,
                                 k == 1 ? "name the file with the private key, in PEM"
                                        : "add key = \"FILE\", or put the key into the same file",
                                 "%s: %s holds no private key", files[k].option, files[k].path);
            close(fd);
        }
    }
}

void cli_check_password_files(const struct conf *conf, struct conf_mistakes *mistakes)
{
    for (size_t i = 0; i < conf->n_domains; i++) {
        const struct conf_domain *domain = &conf->domain[i];
        struct file f = { "password_file", domain->password_file,
                          conf_place_of(conf, domain->name, "password_file", domain->place) };
        struct stat st;
        int fd = f.path ? open_file(mistakes, &f, &st) : -1;
        if (fd < 0)
            continue;
        check_mode(mistakes, &f, &st, "a password");
        if (S_ISREG(st.st_mode) && st.st_size == 0)
            conf_mistake_add(mistakes, f.place, f.option, "write the password into its first line", "%s: %s is empty",
                             f.option, f.path);
        close(fd);
    }
}

static int read_all(int fd, struct buf *into)
{
    for (;;) {
        char *room = buf_reserve(into, 65536);
        ssize_t n = room ? read(fd, room, 65536) : -1;
        if (n <= 0)
            return n == 0 ? 0 : -1;
        into->n += (size_t)n;
    }
}

void cli_check_recipient_files(const struct conf *conf, struct conf_mistakes *mistakes)
{
    for (size_t i = 0; i < conf->n_domains; i++) {
        const struct conf_domain *domain = &conf->domain[i];
        if (!domain->deliver || recipient_source(domain) != RECIPIENT_FILE)
            continue;
        struct file f = { "recipients", domain->recipients,
                          conf_place_of(conf, domain->name, "recipients", domain->place) };
        struct recipient_table *table = NULL;
        struct err err = { 0 };
        struct stat st;
        struct buf text;
        int fd = open_file(mistakes, &f, &st);
        if (fd < 0)
            continue;
        buf_init(&text, RECIPIENT_FILE_MAX + 65536);
        if (read_all(fd, &text) < 0)
            conf_mistake_add(mistakes, f.place, f.option, NULL, "%s: cannot read %s", f.option, f.path);
        else if (recipient_table_new(buf_str(&text), &table, &err) < 0)
            conf_mistake_add(mistakes, f.place, f.option, NULL, "%s: %s: %s", f.option, f.path, err.text);
        else if (recipient_table_count(table) == 0)
            conf_warning_add(mistakes, f.place, f.option, NULL, "%s: %s is empty: no mail for \"%s\" is taken",
                             f.option, f.path, domain->name);
        recipient_table_free(&table);
        buf_done(&text);
        close(fd);
    }
}

void cli_check_ca_file(const struct conf *conf, struct conf_mistakes *mistakes)
{
    struct file f = { "ca_file", conf->ca_file,
                      conf_place_of(conf, conf->file, "ca_file", (struct conf_place){ conf->file, 0 }) };
    struct stat st;
    int fd = f.path ? open_file(mistakes, &f, &st) : -1;
    if (fd >= 0)
        close(fd);
}
