/* check_tls: what TLS and logins really need: the key belongs to the certificate, the certificate is valid now and for
 * the server's name, passwords go to nobody who has not proven who he is, and the user store can be read. Files that
 * are missing are other rows' to report. */
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/check.h"
#include "directory/users.h"
#include "io/now.h"
#include "keystore/certificate.h"
#include "policy/recipient.h"

struct finding {
    struct conf_mistakes *mistakes;
    struct conf_place place;
    const char *option;
};

static void on_fault(void *arg, enum certificate_fault fault, const char *text)
{
    const struct finding *f = arg;
    if (fault == CERTIFICATE_MISTAKE)
        conf_mistake_add(f->mistakes, f->place, f->option, NULL, "%s: %s", f->option, text);
    else
        conf_warning_add(f->mistakes, f->place, f->option, NULL, "%s: %s", f->option, text);
}

static bool read_pem(const char *path, struct buf *pem)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int rc = fd < 0 ? -1 : certificate_read_fd(fd, path, pem, NULL);
    if (fd >= 0)
        close(fd);
    return rc == 0;
}

static void check_key(const struct finding *f, const struct certificate *certificate, const char *path,
                      const char *key_path,
                      struct str key_pem)
{
    struct evp_pkey_st *key = NULL;
    struct err err = { 0 };
    int rc = certificate_key_load(key_pem, key_path, &key, &err);
    if (rc == 0)
        rc = certificate_key_matches(certificate, path, key, key_path, &err);
    if (rc < 0)
        conf_mistake_add(f->mistakes, f->place, f->option, NULL, "%s: %s", f->option, err.text);
    certificate_key_free(&key);
}

static void check_server(const struct conf *conf, const struct conf_server *server, struct conf_mistakes *mistakes)
{
    struct finding of_certificate = { mistakes, conf_place_of(conf, server->name, "certificate", server->place),
                                      "certificate" };
    struct finding of_key = { mistakes, conf_place_of(conf, server->name, "key", server->place),
                              server->key ? "key" : "certificate" };
    const char *key_path = server->key ? server->key : server->certificate;
    struct buf pem, key_pem;
    struct certificate *certificate = NULL;
    struct err err = { 0 };
    buf_init(&pem, CERTIFICATE_FILE_MAX);
    buf_init(&key_pem, CERTIFICATE_FILE_MAX);
    if (!read_pem(server->certificate, &pem)) {
        buf_wipe(&pem);
        return;
    }
    if (certificate_load(buf_str(&pem), server->certificate, &certificate, &err) < 0) {
        on_fault(&of_certificate, CERTIFICATE_MISTAKE, err.text);
    } else {
        certificate_check(certificate, server->certificate, server->name, now_wall_ms(), on_fault, &of_certificate);
        if (read_pem(key_path, &key_pem) && memmem(key_pem.p, key_pem.n, "PRIVATE KEY-----", 16))
            check_key(&of_key, certificate, server->certificate, key_path, buf_str(&key_pem));
    }
    certificate_free(&certificate);
    buf_wipe(&pem);
    buf_wipe(&key_pem);
}

void cli_check_certificates(const struct conf *conf, struct conf_mistakes *mistakes)
{
    for (size_t i = 0; i < conf->n_servers; i++)
        if (conf->server[i].certificate)
            check_server(conf, &conf->server[i], mistakes);
}

void cli_check_logins(const struct conf *conf, struct conf_mistakes *mistakes)
{
    for (size_t i = 0; i < conf->n_domains; i++) {
        const struct conf_domain *domain = &conf->domain[i];
        if (!domain->auth || domain->tls == CONF_TLS_VERIFY)
            continue;
        if (strcmp(domain->auth, "PLAIN") == 0 || strcmp(domain->auth, "LOGIN") == 0)
            conf_warning_add(mistakes, conf_place_of(conf, domain->name, "auth", domain->place), "auth",
                             "write tls = \"verify\"", "auth = \"%s\" tells the password to whoever answers for \"%s\"",
                             domain->auth, domain->name);
    }
}

/* Whether the auth process can read it: no group and no capability comes to its help. */
static bool role_may_read(const struct conf *conf, const struct stat *st)
{
    char name[128];
    snprintf(name, sizeof name, "%s-auth", conf->user);
    const struct passwd *pw = geteuid() == 0 ? getpwnam(name) : NULL;
    if (!pw)
        return true; /* all roles are the user who starts the service, or are to be made yet */
    unsigned bit = st->st_uid == pw->pw_uid ? S_IRUSR : st->st_gid == pw->pw_gid ? S_IRGRP : S_IROTH;
    return st->st_mode & bit;
}

void cli_check_users_db(const struct conf *conf, struct conf_mistakes *mistakes)
{
    struct conf_place place = conf_place_of(conf, conf->file, "users", (struct conf_place){ conf->file, 0 });
    struct users_options options = { .mode = USERS_READ, .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct users *users = NULL;
    struct err err = { 0 };
    struct stat st;
    bool wanted = false;
    for (size_t i = 0; i < conf->n_domains; i++)
        wanted |= conf->domain[i].deliver && recipient_source(&conf->domain[i]) == RECIPIENT_USERS;
    int rc = users_open(conf->users, &options, &users, &err);
    users_close(&users);
    if (rc == ERR_ABSENT) {
        if (wanted)
            conf_warning_add(mistakes, place, "users", "postern user add", "users: there are no users yet, and "
                             "recipients = \"users\" takes mail for nobody else: %s", err.text);
    } else if (rc == -EACCES && geteuid() != 0) {
        conf_warning_add(mistakes, place, "users", "run this as root",
                         "users: you may not read %s, so it was not checked",
                         conf->users);
    } else if (rc < 0 && rc != ERR_BUSY) {
        conf_mistake_add(mistakes, place, "users", NULL, "users: %s", err.text);
    } else if (stat(conf->users, &st) == 0 && !role_may_read(conf, &st)) {
        conf_mistake_add(mistakes, place, "users", "run postern setup, or chown it", "users: the process that checks "
                         "passwords (%s-auth) may not read %s", conf->user, conf->users);
    }
}
