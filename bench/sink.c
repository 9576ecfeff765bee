/* An S3 server that throws bodies away, so that a throughput measurement measures the client.
 *
 *     s3-sink [PORT]        PORT 0 or none: a free one. Says "listening on 127.0.0.1:PORT" on stdout.
 *
 * Loopback only, any bucket, any key pair: nothing is authenticated. Kept are names, sizes, user metadata and what the
 * writer itself says of the content; bodies of at most 1 MiB are kept too, so that records which a writer reads back are
 * there. Larger ones are dropped inside the kernel (MSG_TRUNC), which costs less than a tenth of a CPU second per GB.
 *
 * NO body is digested, and this server would never notice a damaged one. What it answers is the client's own word: the
 * ETag of a PUT or a part is its Content-MD5 in hex, x-amz-checksum-crc32c (header or trailer) comes back as it came,
 * and the ETag and the checksum of a multipart object are made of those of its parts, as Amazon makes them. So a client
 * that compares goes on. Without Content-MD5 an ETag is a text that can not be taken for an MD5.
 *
 * Understood: PUT object and part (Content-Length or chunked, Expect: 100-continue, If-None-Match: *), multipart
 * create, complete and abort, HEAD, GET (also of a range) of what was kept, ListObjectsV2 by prefix, DELETE,
 * DeleteObjects, HEAD and GET of a bucket. A GET of what was dropped is refused (501).
 * SIGTERM and SIGINT end it; it then says on stderr what it took and what it cost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
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

enum { HEAD_BYTES = 16384, NAME_BYTES = 1200, NOTE_BYTES = 600, MAX_PARTS = 10000, LISTED = 1000, KEPT_BYTES = 1 << 20 };

/* An object that was completed, or (with parts) an upload that was begun. One list under one lock: a benchmark has
 * hundreds of them, not millions. */
struct part {
    long long size;
    unsigned crc32c;
    int present, has_md5, has_crc32c;
    unsigned char md5[16];
};

struct object {
    struct object *next;
    unsigned long upload; /* 0: a published object */
    long long size;
    struct part *parts; /* by part number; a part that is sent again counts once */
    char *body;         /* NULL: dropped */
    char name[NAME_BYTES];
    char note[NOTE_BYTES]; /* header lines: x-amz-meta-* */
    char etag[48], crc32c[32];
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
    int chunked, encoded, expects, must_be_new, closes;
    char md5[64], crc32c[32], range[64];
    char note[NOTE_BYTES];
    char *body; /* when it is small; else NULL */
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
        else if (IS("x-amz-checksum-crc32c"))
            copy(r->crc32c, sizeof r->crc32c, value, length);
        else if (IS("content-encoding"))
            r->encoded = !strncasecmp(value, "aws-chunked", 11);
        else if (IS("range"))
            copy(r->range, sizeof r->range, value, length);
        else if (name > 11 && !strncasecmp(line, "x-amz-meta-", 11)) {
            size_t have = strlen(r->note), whole = (size_t)(line_end - line) + 2;
            if (have + whole < sizeof r->note)
                copy(r->note + have, sizeof r->note - have, line, whole);
        }
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

static int keep(struct connection *c, struct request *r)
{
    size_t size = (size_t)r->length, done = c->filled < size ? c->filled : size;
    if (!(r->body = malloc(size + 1)))
        return -1;
    memcpy(r->body, c->buffer, done);
    if (discard(c, (long long)done))
        return -1;
    while (done < size) {
        ssize_t count = recv(c->fd, r->body + done, size - done, 0);
        if (count <= 0)
            return -1;
        done += (size_t)count;
    }
    return 0;
}

/* A trailer of aws-chunked: a checksum that was not known when the head was sent. */
static void note_trailer(struct request *r, const char *line)
{
    if (!strncasecmp(line, "x-amz-checksum-crc32c:", 22))
        copy(r->crc32c, sizeof r->crc32c, line + 22, strlen(line + 22));
}

/* The bytes of the body, kept when they are few, else dropped, or -1. */
static long long take_body(struct connection *c, struct request *r)
{
    if (!r->chunked && !r->encoded) {
        if (!strcmp(r->method, "PUT") && r->length <= KEPT_BYTES)
            return keep(c, r) ? -1 : r->length;
        return discard(c, r->length) ? -1 : r->length;
    }
    char line[256];
    for (long long total = 0;;) {
        if (read_line(c, line, sizeof line))
            return -1;
        long long size = strtoll(line, NULL, 16);
        if (size < 0)
            return -1;
        if (size == 0) {
            do
            {
                if (read_line(c, line, sizeof line))
                    return -1;
                note_trailer(r, line);
            } while (*line);
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

static int from_base64(const char *text, unsigned char *out, size_t room)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned bits = 0, have = 0;
    size_t size = 0;
    for (; *text && *text != '='; text++) {
        const char *digit = strchr(digits, *text);
        if (!digit)
            return 0;
        bits = bits << 6 | (unsigned)(digit - digits);
        have += 6;
        if (have >= 8) {
            have -= 8;
            if (size == room)
                return 0;
            out[size++] = (unsigned char)(bits >> have & 255);
        }
    }
    return size == room;
}

static void md5_block(unsigned *state, const unsigned char *block)
{
    static const unsigned char turns[] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};
    static unsigned sines[64];
    unsigned a = state[0], b = state[1], c = state[2], d = state[3], words[16];
    if (!sines[63]) /* with the lock held, as all of this */
        for (int i = 0; i < 64; i++)
            sines[i] = (unsigned)(long long)floor(fabs(sin(i + 1)) * 4294967296.0);
    for (int i = 0; i < 16; i++)
        words[i] = (unsigned)block[4 * i] | (unsigned)block[4 * i + 1] << 8 | (unsigned)block[4 * i + 2] << 16 |
                   (unsigned)block[4 * i + 3] << 24;
    for (int i = 0; i < 64; i++) {
        int round = i / 16, word = round == 0 ? i : round == 1 ? 5 * i + 1 : round == 2 ? 3 * i + 5 : 7 * i;
        unsigned mix = round == 0 ? (b & c) | (~b & d) : round == 1 ? (d & b) | (~d & c)
                     : round == 2 ? b ^ c ^ d : c ^ (b | ~d);
        unsigned sum = a + mix + sines[i] + words[word & 15], turn = turns[round * 4 + i % 4];
        a = d, d = c, c = b;
        b += sum << turn | sum >> (32 - turn);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

/* MD5 in hex: of the MD5s of an upload's parts only, never of content. */
static void md5_hex(const unsigned char *data, size_t size, char *hex)
{
    unsigned state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    size_t at = 0;
    for (; at + 64 <= size; at += 64)
        md5_block(state, data + at);
    unsigned char tail[128] = {0};
    size_t rest = size - at, whole = rest < 56 ? 64 : 128;
    memcpy(tail, data + at, rest);
    tail[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        tail[whole - 8 + (size_t)i] = (unsigned char)((unsigned long long)size * 8 >> 8 * i);
    md5_block(state, tail);
    if (whole == 128)
        md5_block(state, tail + 64);
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", state[i / 4] >> 8 * (i % 4) & 255);
}

static void etag_of(const char *md5, char *etag, size_t room)
{
    unsigned char digest[16];
    if (!from_base64(md5, digest, sizeof digest)) {
        snprintf(etag, room, "not-digested");
        return;
    }
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(etag + 2 * i, room - 2 * i, "%02x", digest[i]);
}

/* ETag and composite CRC-32C of a completed upload, made of what was said of its parts. */
static void sum_up(const struct object *upload, struct object *whole)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char *md5s = malloc(16 * MAX_PARTS);
    unsigned crc = 0xffffffff;
    int count = 0, have_md5 = 1, have_crc = 1;
    if (!md5s)
        abort();
    for (int number = 1; number <= MAX_PARTS; number++) {
        const struct part *part = upload->parts + number;
        if (!part->present)
            continue;
        whole->size += part->size;
        have_md5 &= part->has_md5;
        have_crc &= part->has_crc32c;
        memcpy(md5s + 16 * count++, part->md5, 16);
        for (int shift = 24; shift >= 0; shift -= 8) {
            crc ^= part->crc32c >> shift & 255;
            for (int bit = 0; bit < 8; bit++)
                crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
        }
    }
    snprintf(whole->etag, sizeof whole->etag, "not-digested-%d", count);
    if (have_md5 && count) {
        md5_hex(md5s, 16 * (size_t)count, whole->etag);
        snprintf(whole->etag + 32, sizeof whole->etag - 32, "-%d", count);
    }
    free(md5s);
    crc = ~crc;
    if (have_crc && count && !*whole->crc32c)
        snprintf(whole->crc32c, sizeof whole->crc32c, "%c%c%c%c%c%c==-%d", digits[crc >> 26], digits[crc >> 20 & 63],
                 digits[crc >> 14 & 63], digits[crc >> 8 & 63], digits[crc >> 2 & 63], digits[crc << 4 & 63], count);
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
        free(gone->body);
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
    struct object **at = &objects; /* in the order of names, as listings are */
    while (*at && strcmp((*at)->name, new->name) < 0)
        at = &(*at)->next;
    new->next = *at;
    *at = new;
    return new;
}

static int put(struct connection *c, struct request *r, long long size)
{
    char number[16], id[32], etag[48], headers[192];
    int taken = 0, part = parameter(r->query, "partNumber", number, sizeof number);
    etag_of(r->md5, etag, sizeof etag);
    pthread_mutex_lock(&lock);
    if (part && parameter(r->query, "uploadId", id, sizeof id)) {
        struct object *upload = *find("", strtoul(id, NULL, 10));
        long index = atol(number);
        taken = !upload || index < 1 || index > MAX_PARTS ? -1 : 0;
        if (!taken) {
            struct part *got = upload->parts + index;
            unsigned char crc[4];
            got->present = 1;
            got->size = size;
            got->has_md5 = from_base64(r->md5, got->md5, sizeof got->md5);
            got->has_crc32c = from_base64(r->crc32c, crc, sizeof crc);
            if (got->has_crc32c)
                got->crc32c = (unsigned)crc[0] << 24 | (unsigned)crc[1] << 16 | (unsigned)crc[2] << 8 | crc[3];
        }
    } else if (r->must_be_new && *find(r->path, 0))
        taken = 1;
    else {
        struct object *new = remember(r->path, 0, r->note);
        new->size = size;
        new->body = r->body;
        r->body = NULL;
        strcpy(new->etag, etag);
        strcpy(new->crc32c, r->crc32c);
    }
    pthread_mutex_unlock(&lock);
    if (taken)
        return taken < 0 ? refuse(c, r, "404 Not Found", "NoSuchUpload")
                         : refuse(c, r, "412 Precondition Failed", "PreconditionFailed");
    snprintf(headers, sizeof headers, "ETag: \"%s\"\r\n%s%s%s", etag, *r->crc32c ? "x-amz-checksum-crc32c: " : "",
             r->crc32c, *r->crc32c ? "\r\n" : "");
    return answer(c, "200 OK", headers, "");
}

static int post(struct connection *c, struct request *r)
{
    char id[32], body[512], checksum[128] = "", etag[48];
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
        struct object *whole = remember(r->path, 0, (*at)->note);
        strcpy(whole->crc32c, r->crc32c);
        at = find("", strtoul(id, NULL, 10)); /* the list has grown */
        sum_up(*at, whole);
        forget(at);
        strcpy(etag, whole->etag);
        if (*whole->crc32c)
            snprintf(checksum, sizeof checksum, "<ChecksumCRC32C>%s</ChecksumCRC32C><ChecksumType>%s</ChecksumType>",
                     whole->crc32c, strchr(whole->crc32c, '-') ? "COMPOSITE" : "FULL_OBJECT");
    }
    pthread_mutex_unlock(&lock);
    if (status)
        return refuse(c, r, status, code);
    snprintf(body, sizeof body,
             "<CompleteMultipartUploadResult><ETag>&quot;%s&quot;</ETag>%s</CompleteMultipartUploadResult>", etag,
             checksum);
    return answer(c, "200 OK", "Content-Type: application/xml\r\n", body);
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
                         "<ETag>&quot;%s&quot;</ETag></Contents>",
                    at->name + strlen(bucket) + 1, at->size, at->etag);
            count++;
        }
    pthread_mutex_unlock(&lock);
    fprintf(out, "<KeyCount>%d</KeyCount></ListBucketResult>", count);
    fclose(out);
    int done = answer(c, "200 OK", "Content-Type: application/xml\r\n", body);
    free(body);
    return done;
}

/* HEAD, and GET of what was kept. */
static int look(struct connection *c, struct request *r)
{
    char headers[NOTE_BYTES + 256], head[NOTE_BYTES + 768], date[64], range[96] = "", *body = NULL;
    long long from = 0, until = 0, size = 0;
    int fetch = !strcmp(r->method, "GET"), partly = 0;
    pthread_mutex_lock(&lock);
    struct object *found = *find(r->path, 0);
    if (found) {
        size = found->size;
        snprintf(headers, sizeof headers, "ETag: \"%s\"\r\n%s%s%s%s", found->etag, found->note,
                 *found->crc32c ? "x-amz-checksum-crc32c: " : "", found->crc32c, *found->crc32c ? "\r\n" : "");
        if (fetch && found->body && (body = malloc((size_t)size + 1)))
            memcpy(body, found->body, (size_t)size);
    }
    pthread_mutex_unlock(&lock);
    if (!found)
        return refuse(c, r, "404 Not Found", "NoSuchKey");
    if (fetch && !body)
        return refuse(c, r, "501 Not Implemented", "NotImplemented");
    until = size;
    if (fetch && sscanf(r->range, "bytes=%lld-%lld", &from, &until) >= 1) {
        until = until < size - 1 && strchr(r->range, '-')[1] ? until + 1 : size;
        if (from < 0 || from >= size || until <= from) {
            free(body);
            return refuse(c, r, "416 Requested Range Not Satisfiable", "InvalidRange");
        }
        partly = 1;
        snprintf(range, sizeof range, "Content-Range: bytes %lld-%lld/%lld\r\n", from, until - 1, size);
    }
    time_t now = time(NULL);
    struct tm parts;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &parts));
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %s\r\nDate: %s\r\nLast-Modified: %s\r\n%s%sContent-Length: %lld\r\n\r\n",
                          partly ? "206 Partial Content" : "200 OK", date, date, headers, range, until - from);
    int failed = send_all(c->fd, head, (size_t)length);
    if (!failed && fetch)
        failed = send_all(c->fd, body + from, (size_t)(until - from));
    free(body);
    return failed;
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
    if (!strcmp(r->method, "GET"))
        return look(c, r);
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
        long long size = take_body(c, &r);
        int done = size < 0;
        if (!done) {
            atomic_fetch_add(&received, size);
            done = serve_one(c, &r, size) || r.closes;
        }
        free(r.body);
        if (done)
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
