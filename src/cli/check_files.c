/* check_files: the files that a configuration names: are they there, can they be read, who else can read them. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/secret.h"
#include "cli/check.h"
#include "policy/identity.h"
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

static void check_password(const struct conf *conf, struct conf_mistakes *mistakes, const char *block,
                           const char *path, struct conf_place place)
{
    struct file f = { "password_file", path, conf_place_of(conf, block, "password_file", place) };
    struct stat st;
    int fd = path ? open_file(mistakes, &f, &st) : -1;
    if (fd < 0)
        return;
    check_mode(mistakes, &f, &st, "a password");
    if (S_ISREG(st.st_mode) && st.st_size == 0)
        conf_mistake_add(mistakes, f.place, f.option, "write the password into its first line", "%s: %s is empty",
                         f.option, f.path);
    close(fd);
}

void cli_check_password_files(const struct conf *conf, struct conf_mistakes *mistakes)
{
    for (size_t i = 0; i < conf->n_domains; i++)
        check_password(conf, mistakes, conf->domain[i].name, conf->domain[i].password_file, conf->domain[i].place);
    for (size_t i = 0; i < conf->n_directories; i++)
        check_password(conf, mistakes, conf->directory[i].realm, conf->directory[i].password_file,
                       conf->directory[i].place);
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

/* Both versions of the format begin with 5; ours are written by ktutil, ktpass, samba-tool and adcli, all in 2. */
static void check_keytab(const struct conf *conf, struct conf_mistakes *mistakes, const char *block, const char *path,
                         struct conf_place place)
{
    struct file f = { "keytab", path, conf_place_of(conf, block, "keytab", place) };
    struct stat st;
    unsigned char head[2] = { 0 };
    int fd = path ? open_file(mistakes, &f, &st) : -1;
    if (fd < 0)
        return;
    check_mode(mistakes, &f, &st, "keys");
    if (pread(fd, head, sizeof head, 0) != sizeof head || head[0] != 5 || head[1] != 2)
        conf_mistake_add(mistakes, f.place, f.option, "make one: ktutil, samba-tool domain exportkeytab, ktpass",
                         "%s: %s is no keytab", f.option, path);
    else if (st.st_size == sizeof head)
        conf_mistake_add(mistakes, f.place, f.option, "make one: ktutil, samba-tool domain exportkeytab, ktpass",
                         "%s: %s holds no keys", f.option, path);
    close(fd);
}

void cli_check_keytabs(const struct conf *conf, struct conf_mistakes *mistakes)
{
    for (size_t i = 0; i < conf->n_servers; i++)
        check_keytab(conf, mistakes, conf->server[i].name, conf->server[i].keytab, conf->server[i].place);
    for (size_t i = 0; i < conf->n_domains; i++)
        check_keytab(conf, mistakes, conf->domain[i].name, conf->domain[i].keytab, conf->domain[i].place);
    for (size_t i = 0; i < conf->n_directories; i++)
        check_keytab(conf, mistakes, conf->directory[i].realm, conf->directory[i].keytab, conf->directory[i].place);
}

static void check_table(struct conf_mistakes *mistakes, const struct file *f, struct identity_rules *rules,
                        const char *name)
{
    struct err err = { 0 };
    struct stat st;
    struct buf text;
    int fd = open_file(mistakes, f, &st);
    if (fd < 0)
        return;
    buf_init(&text, IDENTITY_TABLE_MAX + 65536);
    if (read_all(fd, &text) < 0)
        conf_mistake_add(mistakes, f->place, f->option, NULL, "%s: cannot read %s", f->option, f->path);
    else if (identity_rules_table(rules, str_of(name), buf_str(&text), &err) < 0)
        conf_mistake_add(mistakes, f->place, f->option, NULL, "%s: %s", f->option, err.text);
    buf_done(&text);
    close(fd);
}

void cli_check_identity_tables(const struct conf *conf, struct conf_mistakes *mistakes)
{
    struct identity_rules *rules;
    if (identity_rules_new(conf, &rules, NULL) < 0)
        return;
    for (size_t i = 0; i < conf->n_identities; i++) {
        const struct conf_identity *rule = &conf->identity[i];
        struct file f = { "table", rule->table, conf_place_of(conf, rule->name, "table", rule->place) };
        if (rule->table)
            check_table(mistakes, &f, rules, rule->name);
    }
    identity_rules_unref(&rules);
}

static void check_there(struct conf_mistakes *mistakes, const struct file *f)
{
    struct stat st;
    int fd = f->path ? open_file(mistakes, f, &st) : -1;
    if (fd >= 0)
        close(fd);
}

void cli_check_ca_file(const struct conf *conf, struct conf_mistakes *mistakes)
{
    const struct conf_place top = { conf->file, 0 };
    struct file ca = { "ca_file", conf->ca_file, conf_place_of(conf, conf->file, "ca_file", top) };
    struct file krb5 = { "krb5_config", conf->krb5_config, conf_place_of(conf, conf->file, "krb5_config", top) };
    check_there(mistakes, &ca);
    check_there(mistakes, &krb5);
    for (size_t i = 0; i < conf->n_directories; i++) {
        const struct conf_directory *directory = &conf->directory[i];
        struct file f = { "ca", directory->ca, conf_place_of(conf, directory->realm, "ca", directory->place) };
        check_there(mistakes, &f);
    }
}
