#include "daemon/smtpd/smtpd.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 64 };

static bool peer_address(const struct sockaddr_storage *name, unsigned char ret_address[16], uint16_t *ret_port)
{
    if (name->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)name;
        memset(ret_address, 0, 10);
        memset(ret_address + 10, 0xff, 2);
        memcpy(ret_address + 12, &in->sin_addr, 4);
        *ret_port = ntohs(in->sin_port);
        return true;
    }
    if (name->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)name;
        memcpy(ret_address, &in6->sin6_addr, 16);
        *ret_port = ntohs(in6->sin6_port);
        return true;
    }
    return false;
}

void accept_ready(void *arg, unsigned events)
{
    (void)events;
    struct site_listener *listener = arg;
    struct smtpd *smtpd = listener->site->smtpd;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage name;
        socklen_t name_bytes = sizeof name;
        int fd = accept4(listener->fd, (struct sockaddr *)&name, &name_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno == EAGAIN)
                return;
            log_event(smtpd->ctx->log, LOG_LEVEL_ERROR, "smtpd.accept.failed", "%s: %s", listener->text,
                      strerror(errno));
            /* Descriptors or memory are out: the connection stays in the queue and would wake us for ever. The next
             * sweep tries again. */
            loop_fd_want(listener->watch, 0);
            return;
        }
        unsigned char address[16];
        uint16_t port;
        if (!peer_address(&name, address, &port)) {
            close(fd);
            continue;
        }
        session_begin(smtpd, listener, fd, address, port);
    }
}
