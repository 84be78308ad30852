#include "daemon/master/listen.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "conf/network.h"

enum { BACKLOG = 4096 };

static socklen_t make_address(const unsigned char address[16], uint16_t port, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof *ret);
    if (network_is_ipv4(address)) {
        struct sockaddr_in *in = (struct sockaddr_in *)ret;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, address + 12, 4);
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, address, 16);
    return sizeof *in6;
}

int listen_open(const char *address_and_port, int *ret_fd, struct err *err)
{
    unsigned char address[16];
    uint16_t port;
    if (!network_listen_parse(str_of(address_and_port), address, &port))
        return err_set(err, ERR_CONFIG, "%s is not an address and port", address_and_port);
    struct sockaddr_storage name;
    socklen_t name_bytes = make_address(address, port, &name);
    int fd = socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, errno, "cannot make a socket for %s", address_and_port);
    const int on = 1;
    int rc = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0 ||
        /* What is accepted inherits it. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        (name.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0))
        rc = err_errno(err, errno, "cannot prepare the socket for %s", address_and_port);
    else if (bind(fd, (struct sockaddr *)&name, name_bytes) != 0 || listen(fd, BACKLOG) != 0)
        rc = err_errno(err, errno, errno == EACCES ? "cannot listen on %s (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
                       : errno == EADDRNOTAVAIL ? "cannot listen on %s (no interface has this address)"
                                                : "cannot listen on %s (find who does: ss -ltnp)",
                       address_and_port);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

int listen_open_control(const char *path, int *ret_fd, struct err *err)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    if (!str_copy(str_of(path), name.sun_path, sizeof name.sun_path))
        return err_set(err, ERR_CONFIG, "the control socket's name %s is longer than %zu octets; set control = \"…\"",
                       path, sizeof name.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, errno, "cannot make the control socket");
    /* The spool's lock is ours by now: whoever made this name is gone. */
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
    /* Any local user may hand over mail; who may do more is decided by the peer's uid. The mode comes with the making:
     * a chmod() by name could be led elsewhere by whoever owns the folder. */
    mode_t before = umask(0111);
    int failed = bind(fd, (struct sockaddr *)&name, sizeof name) != 0 || listen(fd, 128) != 0 ? errno : 0;
    umask(before);
    if (failed) {
        int saved = failed;
        close(fd);
        return err_errno(err, saved, "cannot listen on the control socket %s", path);
    }
    *ret_fd = fd;
    return 0;
}
