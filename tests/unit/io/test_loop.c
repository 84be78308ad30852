/* The loop: watches that must survive. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/loop.h"

struct heard {
    int fd;
    unsigned errors, datagrams;
};

static void on_ready(void *arg, unsigned events)
{
    struct heard *h = arg;
    char octet;
    assert_int_equal(events, LOOP_READ);
    ssize_t n = recv(h->fd, &octet, 1, MSG_DONTWAIT);
    if (n == 1)
        h->datagrams++;
    else
        h->errors++;
}

static int bound_socket(struct sockaddr_in *ret_name)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t bytes = sizeof *ret_name;
    /* An address of its own: a port that was let go must not be another test's by then. */
    *ret_name = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f4d0101) };
    assert_int_equal(bind(fd, (struct sockaddr *)ret_name, sizeof *ret_name), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)ret_name, &bytes), 0);
    return fd;
}

/* A refused datagram is an error of one moment: the socket is looked at again when the peer is there. */
static void test_watch_goes_on_after_an_error(void **state)
{
    (void)state;
    struct loop *loop;
    struct loop_fd *watch;
    struct heard h = { 0 };
    struct sockaddr_in ours, theirs;
    h.fd = bound_socket(&ours);
    close(bound_socket(&theirs)); /* a port where nobody is */
    assert_int_equal(connect(h.fd, (struct sockaddr *)&theirs, sizeof theirs), 0);
    assert_int_equal(loop_new(&loop, NULL), 0);
    assert_int_equal(loop_fd_new(loop, h.fd, on_ready, &h, &watch, NULL), 0);
    loop_fd_want(watch, LOOP_READ);
    assert_int_equal(send(h.fd, "x", 1, 0), 1);
    while (h.errors == 0)
        loop_run_once(loop, true);

    int peer = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(peer, (struct sockaddr *)&theirs, sizeof theirs), 0);
    assert_int_equal(sendto(peer, "y", 1, 0, (struct sockaddr *)&ours, sizeof ours), 1);
    while (h.datagrams == 0)
        loop_run_once(loop, true);
    loop_fd_free(&watch);
    loop_free(&loop);
    close(peer);
    close(h.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_watch_goes_on_after_an_error) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
