/* Attempts on sockets: every family, and the ways around a refused connect(2). */
#include "attempts.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

static int makes(int family, int type, int protocol) { return RESULT(socket(family, type, protocol)); }

/* Connects to a socket with a path, or with a name if `name` begins with a NUL byte. */
static int connects(int type, const char *name, size_t length)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);
    if (fd < 0)
        return errno;
    if (length > sizeof address.sun_path)
        return NO_STAGE;
    memcpy(address.sun_path, name, length);
    return RESULT(connect(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + length));
}

static int unix_stream(const char *stage)
{
    char path[1024];
    return below(stage, "outside", "stream", path) ? connects(SOCK_STREAM, path, strlen(path) + 1) : NO_STAGE;
}

static int unix_datagram(const char *stage)
{
    char path[1024];
    return below(stage, "outside", "datagram", path) ? connects(SOCK_DGRAM, path, strlen(path) + 1) : NO_STAGE;
}

static int unix_abstract(const char *stage)
{
    char name[513] = "";
    return staged(stage, "abstract", name + 1) ? connects(SOCK_STREAM, name, 1 + strlen(name + 1)) : NO_STAGE;
}

static int unix_pair(const char *stage)
{
    int ends[2];
    (void)stage;
    return RESULT(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int tcp(const char *stage, int protocol)
{
    struct sockaddr_in address = loopback(staged_number(stage, "tcp"));
    int fd = socket(AF_INET, SOCK_STREAM, protocol);
    return fd < 0 ? errno : RESULT(connect(fd, (struct sockaddr *)&address, sizeof address));
}
static int tcp_connect(const char *stage) { return tcp(stage, 0); }
static int mptcp_connect(const char *stage) { return tcp(stage, 262 /* IPPROTO_MPTCP */); }

static int tcp_fast_open(const char *stage)
{
    struct sockaddr_in address = loopback(staged_number(stage, "tcp"));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : RESULT(sendto(fd, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address));
}

static int tcp_fast_open_message(const char *stage)
{
    struct sockaddr_in address = loopback(staged_number(stage, "tcp"));
    struct iovec byte = {"x", 1};
    struct msghdr message = {.msg_name = &address, .msg_namelen = sizeof address, .msg_iov = &byte, .msg_iovlen = 1};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : RESULT(sendmsg(fd, &message, MSG_FASTOPEN | MSG_NOSIGNAL));
}

static int tcp_bind(const char *stage)
{
    struct sockaddr_in address = loopback(0);
    (void)stage;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : RESULT(bind(fd, (struct sockaddr *)&address, sizeof address));
}

static int tcp_listen(const char *stage)
{
    (void)stage;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : RESULT(listen(fd, 1));
}

static int udp_send(const char *stage)
{
    struct sockaddr_in address = loopback(9);
    (void)stage;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return fd < 0 ? errno : RESULT(sendto(fd, "x", 1, 0, (struct sockaddr *)&address, sizeof address));
}

static int udp6(const char *stage) { (void)stage; return makes(AF_INET6, SOCK_DGRAM, 0); }
static int ping(const char *stage) { (void)stage; return makes(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
static int packet(const char *stage) { (void)stage; return makes(AF_PACKET, SOCK_RAW, 0); }
static int netlink(const char *stage) { (void)stage; return makes(AF_NETLINK, SOCK_RAW, 0); }
static int vsock(const char *stage) { (void)stage; return makes(AF_VSOCK, SOCK_STREAM, 0); }
static int crypto(const char *stage) { (void)stage; return makes(AF_ALG, SOCK_SEQPACKET, 0); }

static int tcp_socket(const char *stage) { (void)stage; return makes(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }

const struct attempt socket_attempts[] = {
    {"unix-stream", unix_stream}, {"unix-datagram", unix_datagram}, {"unix-abstract", unix_abstract}, {"unix-pair", unix_pair},
    {"tcp-socket", tcp_socket}, {"tcp-connect", tcp_connect}, {"mptcp-connect", mptcp_connect},
    {"tcp-fast-open", tcp_fast_open}, {"tcp-fast-open-message", tcp_fast_open_message}, {"tcp-bind", tcp_bind},
    {"tcp-listen", tcp_listen}, {"udp-send", udp_send}, {"udp6", udp6}, {"raw-socket", ping}, {"packet-socket", packet},
    {"netlink", netlink}, {"vsock", vsock}, {"crypto-socket", crypto}, {NULL, NULL},
};
