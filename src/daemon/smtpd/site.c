#include "daemon/smtpd/smtpd.h"

#include <stdlib.h>
#include <unistd.h>

#include "daemon/smtpd/signer.h"

enum { PEM_MAX_BYTES = 1 << 20 };

void smtpd_site_stage(struct smtpd *smtpd, const struct ipc_file *file, int fd)
{
    struct staged_file *staged = calloc(1, sizeof *staged);
    if (staged) {
        staged->name = str_dup(file->name);
        staged->text = str_dup(file->text);
    }
    if (!staged || !staged->name || !staged->text) {
        if (staged) {
            free(staged->name);
            free(staged->text);
        }
        free(staged);
        close(fd);
        return;
    }
    staged->kind = file->kind;
    staged->detail = file->detail;
    staged->fd = fd;
    staged->next = smtpd->staged;
    smtpd->staged = staged;
}

static void free_staged(struct staged_file **staged_at)
{
    struct staged_file *staged = *staged_at;
    *staged_at = staged->next;
    if (staged->fd >= 0)
        close(staged->fd);
    free(staged->name);
    free(staged->text);
    free(staged);
}

static struct staged_file *staged_find(struct smtpd *smtpd, enum ipc_file_kind kind, const char *name)
{
    for (struct staged_file *f = smtpd->staged; f; f = f->next)
        if (f->kind == kind && f->fd >= 0 && strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

static int take_fd(struct staged_file *f)
{
    int fd = f ? f->fd : -1;
    if (f)
        f->fd = -1;
    return fd;
}

static void set_limits(const struct conf *conf, struct smtp_server_limits *limits)
{
    *limits = smtp_server_limits_default;
    limits->line_max_bytes = (size_t)conf->command_line_max;
    limits->text_line_max_bytes = (size_t)conf->text_line_max;
    limits->auth_line_max_bytes = (size_t)conf->auth_line_max;
    limits->max_message_bytes = conf->max_message_size;
    limits->max_recipients = conf->max_recipients;
    limits->max_commands = conf->max_commands;
    limits->max_errors = conf->max_errors;
    limits->command_timeout_ms = (int64_t)conf->command_timeout_s * 1000;
    limits->data_timeout_ms = (int64_t)conf->data_timeout_s * 1000;
    limits->session_timeout_ms = (int64_t)conf->session_timeout_s * 1000;
}

static int build_tls(struct smtpd *smtpd, struct site_server *server, struct err *err)
{
    struct staged_file *f = staged_find(smtpd, IPC_FILE_CERTIFICATE, server->conf->name);
    if (!f)
        return server->conf->certificate ? err_set(err, ERR_CONFIG, "master sent no certificate for %s",
                                                   server->conf->name) : 0;
    struct buf pem;
    buf_init(&pem, PEM_MAX_BYTES);
    int rc = role_read_file(f->fd, &pem, err);
    if (rc == 0)
        rc = signer_server_context_new(smtpd->signer, server->conf->name, buf_str(&pem), server->conf->tls_min,
                                       &server->tls, err);
    /* The file may hold the key too, when both are in one. */
    buf_wipe(&pem);
    return rc;
}

static int build_server(struct smtpd *smtpd, struct site *site, size_t i, struct err *err)
{
    struct site_server *server = &site->server[i];
    server->conf = &site->conf->server[i];
    set_limits(site->conf, &server->limits);
    server->limits_trusted = server->limits;
    server->limits_trusted.max_message_bytes = 0;
    int rc = build_tls(smtpd, server, err);
    int fd = take_fd(staged_find(smtpd, IPC_FILE_PROTOCOL_LOG, server->conf->name));
    if (rc == 0 && fd >= 0)
        rc = log_stream_new(smtpd->ctx->loop, fd, &server->protocol_log, err);
    return rc;
}

static int build_recipients(struct smtpd *smtpd, struct site *site, size_t i, struct err *err)
{
    struct staged_file *f = staged_find(smtpd, IPC_FILE_RECIPIENTS, site->conf->domain[i].name);
    if (!f)
        return 0;
    struct buf text;
    buf_init(&text, RECIPIENT_FILE_MAX);
    int rc = role_read_file(f->fd, &text, err);
    if (rc == 0)
        rc = recipient_table_new(buf_str(&text), &site->recipients[i], err);
    buf_done(&text);
    return rc < 0 ? err_wrap(err, rc, "%s", f->text) : 0;
}

static bool lists_address(const struct conf_server *conf, const char *address)
{
    const struct conf_strings *const lists[] = { &conf->listen, &conf->submission, &conf->submissions };
    for (size_t l = 0; l < 3; l++)
        for (size_t i = 0; i < lists[l]->n; i++)
            if (strcmp(lists[l]->item[i], address) == 0)
                return true;
    return false;
}

/* All virtual servers that name this address can be asked for by SNI. */
static int build_sni(struct site *site, struct site_listener *listener, struct err *err)
{
    int rc = tls_server_set_new(&listener->sni, err);
    for (size_t i = 0; i < site->conf->n_servers && rc == 0; i++)
        if (site->server[i].tls && lists_address(site->server[i].conf, listener->text))
            rc = tls_server_set_add(listener->sni, site->server[i].tls, err);
    return rc;
}

static int build_listener(struct site *site, struct staged_file *f, struct err *err)
{
    struct site_listener *listener = &site->listener[site->n_listeners];
    *listener = (struct site_listener){ .site = site, .kind = f->detail, .fd = -1 };
    for (size_t i = 0; i < site->conf->n_servers; i++)
        if (strcmp(site->conf->server[i].name, f->name) == 0)
            listener->server = &site->server[i];
    if (!listener->server || f->detail > CONF_SUBMISSIONS)
        return err_set(err, ERR_SYNTAX, "master sent a listener of an unknown server, %s", f->name);
    listener->text = str_dup(str_of(f->text));
    if (!listener->text)
        return err_set(err, -ENOMEM, "out of memory for a listener");
    listener->fd = take_fd(f);
    site->n_listeners++;
    return build_sni(site, listener, err);
}

static int build(struct smtpd *smtpd, struct site *site, struct err *err)
{
    size_t n_listeners = 0;
    for (struct staged_file *f = smtpd->staged; f; f = f->next)
        n_listeners += f->kind == IPC_FILE_LISTENER;
    site->server = calloc(site->conf->n_servers + 1, sizeof *site->server);
    site->recipients = calloc(site->conf->n_domains + 1, sizeof(struct recipient_table *));
    site->listener = calloc(n_listeners + 1, sizeof *site->listener);
    if (!site->server || !site->recipients || !site->listener)
        return err_set(err, -ENOMEM, "out of memory for the configuration");
    int rc = 0;
    for (size_t i = 0; i < site->conf->n_servers && rc == 0; i++)
        rc = build_server(smtpd, site, i, err);
    for (size_t i = 0; i < site->conf->n_domains && rc == 0; i++)
        rc = build_recipients(smtpd, site, i, err);
    for (struct staged_file *f = smtpd->staged; f && rc == 0; f = f->next)
        if (f->kind == IPC_FILE_LISTENER)
            rc = build_listener(site, f, err);
    struct staged_file *log = staged_find(smtpd, IPC_FILE_SESSION_LOG, "");
    if (rc == 0 && log)
        rc = log_stream_new(smtpd->ctx->loop, take_fd(log), &site->session_log, err);
    return rc;
}

int smtpd_site_build(struct smtpd *smtpd, struct site **ret_site, struct err *err)
{
    struct site *site = calloc(1, sizeof *site);
    int rc = site ? 0 : err_set(err, -ENOMEM, "out of memory for the configuration");
    if (rc == 0) {
        site->refs = 1;
        site->smtpd = smtpd;
        site->conf = conf_ref(smtpd->ctx->conf);
        rc = build(smtpd, site, err);
    }
    while (smtpd->staged)
        free_staged(&smtpd->staged);
    if (rc < 0) {
        smtpd_site_unref(&site);
        return rc;
    }
    *ret_site = site;
    return 0;
}

void smtpd_site_listen(struct site *site)
{
    for (size_t i = 0; i < site->n_listeners; i++) {
        struct site_listener *listener = &site->listener[i];
        struct err err;
        if (loop_fd_new(site->smtpd->ctx->loop, listener->fd, accept_ready, listener, &listener->watch, &err) < 0)
            log_event(site->smtpd->ctx->log, LOG_LEVEL_ERROR, "smtpd.listen.failed", "%s: %s", listener->text, err.text);
        else
            loop_fd_want(listener->watch, LOOP_READ);
    }
}

void smtpd_site_accept_again(struct site *site)
{
    for (size_t i = 0; i < site->n_listeners; i++)
        if (site->listener[i].watch)
            loop_fd_want(site->listener[i].watch, LOOP_READ);
}

void smtpd_site_stop_listening(struct site *site)
{
    for (size_t i = 0; i < site->n_listeners; i++) {
        loop_fd_free(&site->listener[i].watch);
        if (site->listener[i].fd >= 0)
            close(site->listener[i].fd);
        site->listener[i].fd = -1;
    }
}

struct site *smtpd_site_ref(struct site *site)
{
    site->refs++;
    return site;
}

const char *smtpd_site_list(struct site *site, const char *text)
{
    for (size_t i = 0; i < site->n_lists; i++)
        if (strcmp(site->list[i], text) == 0)
            return site->list[i];
    char **grown = realloc(site->list, (site->n_lists + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    site->list = grown;
    grown[site->n_lists] = str_dup(str_of(text));
    return grown[site->n_lists] ? grown[site->n_lists++] : NULL;
}

void smtpd_site_unref(struct site **site_at)
{
    struct site *site = *site_at;
    *site_at = NULL;
    if (!site || --site->refs > 0)
        return;
    smtpd_site_stop_listening(site);
    for (size_t i = 0; i < site->n_listeners; i++) {
        tls_server_set_unref(&site->listener[i].sni);
        free(site->listener[i].text);
    }
    for (size_t i = 0; site->server && i < site->conf->n_servers; i++) {
        tls_server_context_unref(&site->server[i].tls);
        log_stream_free(&site->server[i].protocol_log);
    }
    for (size_t i = 0; site->recipients && i < site->conf->n_domains; i++)
        recipient_table_free(&site->recipients[i]);
    for (size_t i = 0; i < site->n_lists; i++)
        free(site->list[i]);
    free(site->list);
    log_stream_free(&site->session_log);
    free(site->server);
    free(site->recipients);
    free(site->listener);
    conf_unref(&site->conf);
    free(site);
}
