/* A V4L2 camera at the boundary to the kernel, to be loaded before libc (LD_PRELOAD): what opens the file that
   V4L2_FAKE_DEVICE names gets this camera, ten frames a second, by the calls and structures of <linux/videodev2.h>.

   V4L2_FAKE_FORMATS   what it has, e.g. "MJPG,YUYV"; empty: it is a metadata node
   V4L2_FAKE_JPEG      the file that it sends as MJPG
   V4L2_FAKE_TROUBLE   "absent", "denied", "busy": each time; "unplugged": after four frames, until it is opened again;
                       "silent": after four frames; "damaged": every other frame
   YUYV is 64 x 48 of one colour whatever is asked for, each row followed by 32 bytes of padding. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { WIDTH = 64, HEIGHT = 48, STRIDE = 2 * WIDTH + 32, SIZE = 1 << 20, BUFFERS = 4 };

/* A timer's descriptor stands for the device's: it is readable when a frame is due. */
static int device = -1;
static uint32_t format;
static struct { void *memory; int queued; } buffers[BUFFERS];
static unsigned count, frames;

static int fail(int error) { errno = error; return -1; }

static int trouble(const char *name) {
    const char *is = getenv("V4L2_FAKE_TROUBLE");
    return is && !strcmp(is, name);
}

static int open_device(const char *path, int flags, mode_t mode) {
    const char *ours = getenv("V4L2_FAKE_DEVICE");
    if (!ours || strcmp(path, ours)) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (trouble("absent")) return fail(ENOENT);
    if (trouble("denied")) return fail(EACCES);
    if (device >= 0 && fcntl(device, F_GETFD) >= 0) fprintf(stderr, "v4l2_device: opened twice\n"), abort();
    memset(buffers, 0, sizeof buffers);
    count = frames = 0;
    return device = timerfd_create(CLOCK_MONOTONIC, flags & O_CLOEXEC ? TFD_CLOEXEC : 0);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_device(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_device(path, flags, mode);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    if (fd < 0 || fd != device) return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
    return buffers[offset / SIZE].memory =
               (void *)syscall(SYS_mmap, NULL, length, protection, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static int has(uint32_t wanted) {
    char name[5] = {wanted, wanted >> 8, wanted >> 16, wanted >> 24, 0};
    return strstr(getenv("V4L2_FAKE_FORMATS"), name) != NULL;
}

static int enumerate(struct v4l2_fmtdesc *it) {
    const char *names = getenv("V4L2_FAKE_FORMATS");
    if (it->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || strlen(names) < it->index * 5 + 4) return fail(EINVAL);
    names += it->index * 5;
    it->pixelformat = v4l2_fourcc(names[0], names[1], names[2], names[3]);
    strcpy((char *)it->description, "of a camera that is none");
    return 0;
}

static int set_format(struct v4l2_format *it) {
    if (trouble("busy")) return fail(EBUSY);
    struct v4l2_pix_format *pix = &it->fmt.pix;
    if (it->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || !has(pix->pixelformat)) return fail(EINVAL);
    format = pix->pixelformat;
    if (format == V4L2_PIX_FMT_YUYV) pix->width = WIDTH, pix->height = HEIGHT, pix->bytesperline = STRIDE;
    pix->sizeimage = SIZE;
    return 0;
}

static int stream(int on) {
    struct itimerspec tick = {{0, on * 100000000}, {0, on * 100000000}};
    return timerfd_settime(device, 0, &tick, NULL);
}

static unsigned fill(uint8_t *memory) {
    if (format == V4L2_PIX_FMT_YUYV) {
        memset(memory, 0xEE, SIZE);
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH / 2; x++) memcpy(memory + y * STRIDE + x * 4, "\x51\x5a\x51\xf0", 4);
        return HEIGHT * STRIDE;
    }
    FILE *file = fopen(getenv("V4L2_FAKE_JPEG"), "rb");
    if (!file) abort();
    unsigned length = fread(memory, 1, SIZE, file);
    fclose(file);
    return length;
}

static int dequeue(struct v4l2_buffer *it) {
    uint64_t ticks;
    if (read(device, &ticks, sizeof ticks) < 0) return -1;
    if (frames == 4 && trouble("unplugged")) return fail(ENODEV);
    if (++frames == 4 && trouble("silent")) stream(0);
    for (unsigned i = 0; i < count; i++)
        if (buffers[i].queued) {
            buffers[i].queued = 0;
            it->index = i;
            it->flags = frames % 2 && trouble("damaged") ? V4L2_BUF_FLAG_ERROR : 0;
            it->bytesused = fill(buffers[i].memory);
            it->sequence = frames;
            return 0;
        }
    fprintf(stderr, "v4l2_device: no buffer was given back\n");
    abort();
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (fd < 0 || fd != device) return syscall(SYS_ioctl, fd, request, argument);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *it = argument;
        memset(it, 0, sizeof *it);
        strcpy((char *)it->driver, "none");
        it->capabilities = it->device_caps =
            (*getenv("V4L2_FAKE_FORMATS") ? V4L2_CAP_VIDEO_CAPTURE : V4L2_CAP_META_CAPTURE) | V4L2_CAP_STREAMING;
        return 0;
    }
    case VIDIOC_ENUM_FMT: return enumerate(argument);
    case VIDIOC_S_FMT: return set_format(argument);
    case VIDIOC_S_PARM: return 0;
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *it = argument;
        if (it->memory != V4L2_MEMORY_MMAP) return fail(EINVAL);
        count = it->count = it->count < BUFFERS ? it->count : BUFFERS;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *it = argument;
        it->length = SIZE;
        it->m.offset = it->index * SIZE;
        return 0;
    }
    case VIDIOC_QBUF: {
        struct v4l2_buffer *it = argument;
        if (it->index >= count || buffers[it->index].queued) return fail(EINVAL);
        buffers[it->index].queued = 1;
        return 0;
    }
    case VIDIOC_DQBUF: return dequeue(argument);
    case VIDIOC_STREAMON: return stream(1);
    case VIDIOC_STREAMOFF: return stream(0);
    default: return fail(ENOTTY);
    }
}
