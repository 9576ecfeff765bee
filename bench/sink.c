/* An S3 server that throws bodies away, so that a throughput measurement measures the client.
 *
 *     s3-sink [PORT]        PORT 0 or none: a free one. Says "listening on 127.0.0.1:PORT" on stdout.
 *
 * Loopback only, any bucket, any key pair: nothing is authenticated and nothing is kept but names, sizes and user
 * metadata, as far as a writer asks for them afterwards. Bodies are dropped inside the kernel (MSG_TRUNC), which costs
 * less than a tenth of a CPU second per GB.
 *
 * The ETag of a PUT or a part is its Content-MD5 in hex when the request has one, so that a client which compares the
 * two goes on; the body is NOT digested, and this server would never notice a damaged one. Without Content-MD5 the ETag
 * is a text that can not be taken for an MD5. ETags of multipart objects are of that kind too: measure with
 * profile=generic. Objects can not be read back (501).
 *
 * Understood: PUT object and part (Content-Length or chunked, Expect: 100-continue, If-None-Match: *), multipart
 * create, complete and abort, HEAD, ListObjectsV2, DELETE, DeleteObjects, HEAD and GET of a bucket.
 * SIGTERM and SIGINT end it; it then says on stderr what it took and what it cost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 16384, NAME_BYTES = 1200, NOTE_BYTES = 300, MAX_PARTS = 10000, LISTED = 1000 };

/* An object that was completed, or (with parts) an upload that was begun. One list under one lock: a benchmark has
 * hundreds of them, not millions. */
struct object {
    struct object *next;
    unsigned long upload; /* 0: a published object */
    long long size;
    long long *parts; /* sizes by part number; a part that is sent again counts once */
    char name[NAME_BYTES];
    char note[NOTE_BYTES]; /* x-amz-meta-mover-nonce */
};

static struct object *objects;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long uploads;
static atomic_llong received;
static atomic_long requests;

struct connection {
    int fd;
    char buffer[HEAD_BYTES + 1];
    size_t filled; /* bytes in buffer; behind the head they are the body's beginning */
};

struct request {
    char method[8];
    char path[NAME_BYTES];
    char query[NAME_BYTES];
    long long length;
    int chunked, expects, must_be_new, closes;
    char md5[64];
    char note[NOTE_BYTES];
};

static int send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t count = send(fd, data, size, MSG_NOSIGNAL);
        if (count <= 0)
            return -1;
        data += count;
        size -= (size_t)count;
    }
    return 0;
}

/* Reads until the head is whole. Its length with the empty line, 0 at the end of the connection, -1 for trouble. */
static int read_head(struct connection *c)
{
    for (;;) {
        c->buffer[c->filled] = 0;
        char *end = memmem(c->buffer, c->filled, "\r\n\r\n", 4);
        if (end)
            return (int)(end - c->buffer) + 4;
        if (c->filled == HEAD_BYTES)
            return -1;
        ssize_t count = recv(c->fd, c->buffer + c->filled, HEAD_BYTES - c->filled, 0);
        if (count <= 0)
            return count == 0 && c->filled == 0 ? 0 : -1;
        c->filled += (size_t)count;
    }
}

static void copy(char *to, size_t room, const char *from, size_t length)
{
    if (length >= room)
        length = room - 1;
    memcpy(to, from, length);
    to[length] = 0;
}

static int parse(char *head, struct request *r)
{
    memset(r, 0, sizeof *r);
    char *line_end = strstr(head, "\r\n");
    char *space = memchr(head, ' ', (size_t)(line_end - head));
    if (!space)
        return -1;
    char *target = space + 1, *target_end = memchr(target, ' ', (size_t)(line_end - target));
    if (!target_end)
        return -1;
    copy(r->method, sizeof r->method, head, (size_t)(space - head));
    char *mark = memchr(target, '?', (size_t)(target_end - target));
    copy(r->path, sizeof r->path, target, (size_t)((mark ? mark : target_end) - target));
    if (mark)
        copy(r->query, sizeof r->query, mark + 1, (size_t)(target_end - mark - 1));
    for (char *line = line_end + 2; *line && *line != '\r'; line = line_end + 2) {
        line_end = strstr(line, "\r\n");
        char *colon = memchr(line, ':', (size_t)(line_end - line));
        if (!colon)
            continue;
        char *value = colon + 1;
        while (*value == ' ')
            value++;
        size_t name = (size_t)(colon - line), length = (size_t)(line_end - value);
#define IS(text) (name == sizeof text - 1 && !strncasecmp(line, text, name))
        if (IS("content-length"))
            r->length = atoll(value);
        else if (IS("transfer-encoding"))
            r->chunked = !strncasecmp(value, "chunked", 7);
        else if (IS("expect"))
            r->expects = 1;
        else if (IS("if-none-match"))
            r->must_be_new = *value == '*';
        else if (IS("connection"))
            r->closes = !strncasecmp(value, "close", 5);
        else if (IS("content-md5"))
            copy(r->md5, sizeof r->md5, value, length);
        else if (IS("x-amz-meta-mover-nonce"))
            copy(r->note, sizeof r->note, value, length);
#undef IS
    }
    return r->length < 0 ? -1 : 0;
}

/* Drops the next ``length`` bytes: first what is in the buffer, then in the kernel, uncopied. */
static int discard(struct connection *c, long long length)
{
    size_t here = (long long)c->filled < length ? c->filled : (size_t)length;
    memmove(c->buffer, c->buffer + here, c->filled - here);
    c->filled -= here;
    length -= (long long)here;
    while (length) {
        size_t want = length > (1 << 20) ? 1 << 20 : (size_t)length;
        ssize_t count = recv(c->fd, NULL, want, MSG_TRUNC);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        length -= count;
    }
    return 0;
}

/* A line up to CR LF out of the stream, for chunk sizes. */
static int read_line(struct connection *c, char *line, size_t room)
{
    for (;;) {
        char *end = memmem(c->buffer, c->filled, "\r\n", 2);
        if (end) {
            size_t length = (size_t)(end - c->buffer);
            copy(line, room, c->buffer, length);
            return discard(c, (long long)length + 2);
        }
        if (c->filled == HEAD_BYTES)
            return -1;
        ssize_t count = recv(c->fd, c->buffer + c->filled, HEAD_BYTES - c->filled, 0);
        if (count <= 0)
            return -1;
        c->filled += (size_t)count;
    }
}

/* The bytes of the body, all dropped, or -1. */
static long long drop_body(struct connection *c, const struct request *r)
{
    if (!r->chunked)
        return discard(c, r->length) ? -1 : r->length;
    char line[256];
    for (long long total = 0;;) {
        if (read_line(c, line, sizeof line))
            return -1;
        long long size = strtoll(line, NULL, 16);
        if (size < 0)
            return -1;
        if (size == 0) {
            do /* trailers */
                if (read_line(c, line, sizeof line))
                    return -1;
            while (*line);
            return total;
        }
        if (discard(c, size + 2))
            return -1;
        total += size;
    }
}

static int answer(struct connection *c, const char *status, const char *headers, const char *body)
{
    char date[64], out[2048 + LISTED];
    time_t now = time(NULL);
    struct tm parts;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &parts));
    int length = snprintf(out, sizeof out,
                          "HTTP/1.1 %s\r\nDate: %s\r\nServer: mover-sink\r\n%sContent-Length: %zu\r\n\r\n",
                          status, date, headers, strlen(body));
    if (send_all(c->fd, out, (size_t)length))
        return -1;
    return send_all(c->fd, body, strlen(body));
}

static int refuse(struct connection *c, const struct request *r, const char *status, const char *code)
{
    char body[256];
    snprintf(body, sizeof body, "<Error><Code>%s</Code><Message>mover-sink</Message></Error>", code);
    return answer(c, status, "Content-Type: application/xml\r\n", strcmp(r->method, "HEAD") ? body : "");
}

/* Whether the query has the parameter; its value too when wanted. */
static int parameter(const char *query, const char *name, char *value, size_t room)
{
    size_t length = strlen(name);
    for (const char *at = query; at && *at; at = (at = strchr(at, '&')) ? at + 1 : NULL) {
        if (strncmp(at, name, length) || (at[length] && at[length] != '=' && at[length] != '&'))
            continue;
        if (value) {
            const char *from = at[length] == '=' ? at + length + 1 : at + length;
            copy(value, room, from, strcspn(from, "&"));
        }
        return 1;
    }
    return 0;
}

static void unescape(char *text)
{
    char *to = text;
    for (char *at = text; *at; at++)
        if (*at == '%' && isxdigit((unsigned char)at[1]) && isxdigit((unsigned char)at[2])) {
            char pair[3] = {at[1], at[2], 0};
            *to++ = (char)strtol(pair, NULL, 16);
            at += 2;
        } else
            *to++ = *at;
    *to = 0;
}

static void etag_of(const char *md5, char *etag, size_t room)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned bits = 0, have = 0;
    size_t out = 0;
    for (; *md5 && *md5 != '='; md5++) {
        const char *digit = strchr(digits, *md5);
        if (!digit)
            break;
        bits = bits << 6 | (unsigned)(digit - digits);
        have += 6;
        if (have >= 8) {
            have -= 8;
            snprintf(etag + out, room - out, "%02x", bits >> have & 255);
            out += 2;
        }
    }
    if (out != 32)
        snprintf(etag, room, "not-digested");
}

/* All with the lock held. */
static struct object **find(const char *name, unsigned long upload)
{
    struct object **at = &objects;
    while (*at && ((*at)->upload != upload || (upload == 0 && strcmp((*at)->name, name))))
        at = &(*at)->next;
    return at;
}

static void forget(struct object **at)
{
    struct object *gone = *at;
    if (gone) {
        *at = gone->next;
        free(gone->parts);
        free(gone);
    }
}

static struct object *remember(const char *name, unsigned long upload, const char *note)
{
    if (!upload)
        forget(find(name, 0));
    struct object *new = calloc(1, sizeof *new);
    if (new && upload)
        new->parts = calloc(MAX_PARTS + 1, sizeof *new->parts);
    if (!new || (upload && !new->parts))
        abort();
    new->upload = upload;
    copy(new->name, sizeof new->name, name, strlen(name));
    copy(new->note, sizeof new->note, note, strlen(note));
    new->next = objects;
    objects = new;
    return new;
}

static int put(struct connection *c, struct request *r, long long size)
{
    char number[16], id[32], etag[48], headers[96];
    int taken = 0, part = parameter(r->query, "partNumber", number, sizeof number);
    pthread_mutex_lock(&lock);
    if (part && parameter(r->query, "uploadId", id, sizeof id)) {
        struct object *upload = *find("", strtoul(id, NULL, 10));
        long index = atol(number);
        taken = !upload || index < 1 || index > MAX_PARTS ? -1 : 0;
        if (!taken)
            upload->parts[index] = size;
    } else if (r->must_be_new && *find(r->path, 0))
        taken = 1;
    else
        remember(r->path, 0, r->note)->size = size;
    pthread_mutex_unlock(&lock);
    if (taken)
        return taken < 0 ? refuse(c, r, "404 Not Found", "NoSuchUpload")
                         : refuse(c, r, "412 Precondition Failed", "PreconditionFailed");
    etag_of(r->md5, etag, sizeof etag);
    snprintf(headers, sizeof headers, "ETag: \"%s\"\r\n", etag);
    return answer(c, "200 OK", headers, "");
}

static int post(struct connection *c, struct request *r)
{
    char id[32], body[512];
    if (parameter(r->query, "delete", NULL, 0)) /* keys stay listed: nothing is kept that would matter */
        return answer(c, "200 OK", "Content-Type: application/xml\r\n", "<DeleteResult/>");
    pthread_mutex_lock(&lock);
    if (parameter(r->query, "uploads", NULL, 0)) {
        unsigned long number = ++uploads;
        remember(r->path, number, r->note);
        pthread_mutex_unlock(&lock);
        snprintf(body, sizeof body,
                 "<InitiateMultipartUploadResult><UploadId>%lu</UploadId></InitiateMultipartUploadResult>", number);
        return answer(c, "200 OK", "Content-Type: application/xml\r\n", body);
    }
    struct object **at = parameter(r->query, "uploadId", id, sizeof id) ? find("", strtoul(id, NULL, 10)) : NULL;
    const char *status = NULL, *code = "NoSuchUpload";
    if (!at || !*at || strtoul(id, NULL, 10) == 0)
        status = "404 Not Found";
    else if (r->must_be_new && *find(r->path, 0)) {
        status = "412 Precondition Failed";
        code = "PreconditionFailed";
    } else {
        struct object *upload = *at;
        long long size = 0;
        for (int part = 1; part <= MAX_PARTS; part++)
            size += upload->parts[part];
        char note[NOTE_BYTES];
        strcpy(note, upload->note);
        forget(at);
        remember(r->path, 0, note)->size = size;
    }
    pthread_mutex_unlock(&lock);
    if (status)
        return refuse(c, r, status, code);
    return answer(c, "200 OK", "Content-Type: application/xml\r\n",
                  "<CompleteMultipartUploadResult><ETag>&quot;not-digested&quot;</ETag></CompleteMultipartUploadResult>");
}

static int listing(struct connection *c, struct request *r, const char *bucket)
{
    char prefix[NAME_BYTES] = "", wanted[2 * NAME_BYTES];
    parameter(r->query, "prefix", prefix, sizeof prefix);
    unescape(prefix);
    snprintf(wanted, sizeof wanted, "%s/%s", bucket, prefix);
    char *body = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&body, &length);
    if (!out)
        return -1;
    fprintf(out, "<ListBucketResult><IsTruncated>false</IsTruncated>");
    pthread_mutex_lock(&lock);
    int count = 0;
    for (struct object *at = objects; at && count < LISTED; at = at->next)
        if (!at->upload && !strncmp(at->name, wanted, strlen(wanted))) {
            fprintf(out, "<Contents><Key>%s</Key><Size>%lld</Size><LastModified>2000-01-01T00:00:00.000Z</LastModified>"
                         "<ETag>&quot;not-digested&quot;</ETag></Contents>",
                    at->name + strlen(bucket) + 1, at->size);
            count++;
        }
    pthread_mutex_unlock(&lock);
    fprintf(out, "<KeyCount>%d</KeyCount></ListBucketResult>", count);
    fclose(out);
    int done = answer(c, "200 OK", "Content-Type: application/xml\r\n", body);
    free(body);
    return done;
}

static int look(struct connection *c, struct request *r)
{
    char headers[NOTE_BYTES + 256], answer_head[NOTE_BYTES + 512], date[64];
    pthread_mutex_lock(&lock);
    struct object *found = *find(r->path, 0);
    if (found)
        snprintf(headers, sizeof headers, "ETag: \"not-digested\"\r\n%s%s%sContent-Length: %lld\r\n",
                 *found->note ? "x-amz-meta-mover-nonce: " : "", found->note, *found->note ? "\r\n" : "", found->size);
    pthread_mutex_unlock(&lock);
    if (!found)
        return refuse(c, r, "404 Not Found", "NoSuchKey");
    time_t now = time(NULL);
    struct tm parts;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &parts));
    int length = snprintf(answer_head, sizeof answer_head, "HTTP/1.1 200 OK\r\nDate: %s\r\nLast-Modified: %s\r\n%s\r\n",
                          date, date, headers);
    return send_all(c->fd, answer_head, (size_t)length);
}

static int serve_one(struct connection *c, struct request *r, long long size)
{
    unescape(r->path);
    char *slash = strchr(r->path + 1, '/');
    int is_bucket = !slash || !slash[1];
    if (is_bucket && slash)
        *slash = 0;
    if (!strcmp(r->method, "PUT"))
        return is_bucket ? answer(c, "200 OK", "", "") : put(c, r, size);
    if (!strcmp(r->method, "POST"))
        return post(c, r);
    if (!strcmp(r->method, "DELETE")) {
        char id[32];
        pthread_mutex_lock(&lock);
        int upload = parameter(r->query, "uploadId", id, sizeof id);
        forget(upload ? find("", strtoul(id, NULL, 10)) : find(r->path, 0));
        pthread_mutex_unlock(&lock);
        return answer(c, "204 No Content", "", "");
    }
    if (!strcmp(r->method, "HEAD"))
        return is_bucket ? answer(c, "200 OK", "", "") : look(c, r);
    if (!strcmp(r->method, "GET") && is_bucket) {
        if (parameter(r->query, "location", NULL, 0))
            return answer(c, "200 OK", "Content-Type: application/xml\r\n", "<LocationConstraint/>");
        return listing(c, r, r->path);
    }
    return refuse(c, r, "501 Not Implemented", "NotImplemented");
}

static void *serve(void *argument)
{
    struct connection *c = argument;
    struct request r;
    int head;
    while ((head = read_head(c)) > 0) {
        char saved = c->buffer[head];
        c->buffer[head] = 0;
        int bad = parse(c->buffer, &r);
        c->buffer[head] = saved;
        if (bad || discard(c, head))
            break;
        atomic_fetch_add(&requests, 1);
        if (r.expects && send_all(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25))
            break;
        long long size = drop_body(c, &r);
        if (size < 0)
            break;
        atomic_fetch_add(&received, size);
        if (serve_one(c, &r, size) || r.closes)
            break;
    }
    close(c->fd);
    free(c);
    return NULL;
}

/* Signals are taken by a thread of their own, so that nothing here must be safe inside a handler. */
static void *wait_for_signal(void *set)
{
    int number;
    sigwait(set, &number);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    fprintf(stderr, "mover-sink: %ld requests, %.3f GB, %.2f CPU seconds\n", atomic_load(&requests),
            (double)atomic_load(&received) / 1e9, cpu);
    _exit(0);
}

int main(int count, char **arguments)
{
    static sigset_t ending;
    pthread_t thread;
    pthread_attr_t small;
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a benchmark that dies leaves no server behind */
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ending, NULL);
    signal(SIGPIPE, SIG_IGN);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_create(&thread, &small, wait_for_signal, &ending);

    int one = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    here.sin_port = htons((unsigned short)(count > 1 ? atoi(arguments[1]) : 0));
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (server < 0 || bind(server, (struct sockaddr *)&here, sizeof here) || listen(server, 256) ||
        getsockname(server, (struct sockaddr *)&here, &size)) {
        perror("mover-sink");
        return 1;
    }
    printf("listening on 127.0.0.1:%d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            perror("mover-sink: accept");
            return 1;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = malloc(sizeof *c);
        if (!c)
            return 1;
        c->fd = fd;
        c->filled = 0;
        if (pthread_create(&thread, &small, serve, c)) {
            close(fd);
            free(c);
        }
    }
}
