#include "cpu/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <stdexcept>
#include <string>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#define TSAN_ACQUIRE(p) __tsan_acquire(p)
#define TSAN_RELEASE(p) __tsan_release(p)
#else
#define TSAN_ACQUIRE(p)
#define TSAN_RELEASE(p)
#endif

namespace tinygrad_nm {
namespace {

// Below this many operations or bytes, waking threads costs more than they save.
constexpr double serial_work = 65536;
constexpr int most_threads = 1024;  // OpenMP ends the process when it cannot start a thread

std::atomic<int> thread_limit{0};       // 0: not yet asked for
std::atomic<bool> forked_child{false};  // OpenMP's threads do not survive fork(): using them would hang
thread_local bool inside_task = false;  // parallel_for within a task runs serially
thread_local int threads_of_last_run = 1;

[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] { forked_child = true; });

// Threads order nothing among themselves but the job's beginning and its end: the atomics are relaxed, and
// ThreadSanitizer is told of just these two, so that it sees a race between any two tasks.
constexpr std::memory_order relaxed = std::memory_order_relaxed;

// Adjacent tasks that one thread begins with, so that from kernel to kernel a thread finds its part of the
// data in its own cache; threads that are through with theirs take from the others'. The first task is never
// taken by another: every thread takes part.
struct alignas(64) Share {
    int64_t begin, end;
    std::atomic<int64_t> next;
};
constexpr int most_shares = 16;  // more threads than that share them

struct Job {
    int64_t tasks;
    void (*task)(void*, int64_t);
    void* context;
    int shares;
    Share share[most_shares] = {};
    std::atomic<int> threads{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error{};
};

#ifdef _OPENMP
void run_one(Job& job, int64_t index) {
    try {
        job.task(job.context, index);
    } catch (...) {
        if (!job.failed.exchange(true, relaxed)) job.error = std::current_exception();
    }
}

// A thread's share of the job, for thread number `thread` of a team.
void run_share(Job& job, int thread, int team) {
    TSAN_ACQUIRE(&job.tasks);
    inside_task = true;
    job.threads.fetch_add(1, relaxed);
    for (int s = thread; s < job.shares && !job.failed.load(relaxed); s += team)
        run_one(job, job.share[s].begin);
    for (int k = 0; k < job.shares; ++k) {
        Share& share = job.share[(thread + k) % job.shares];
        for (int64_t i = share.next.fetch_add(1, relaxed); i < share.end && !job.failed.load(relaxed);
             i = share.next.fetch_add(1, relaxed))
            run_one(job, i);
    }
    inside_task = false;
    TSAN_RELEASE(&job.error);
}

// Not instrumented: ThreadSanitizer cannot see how OpenMP hands the pointer over. The team may be smaller
// than asked for.
__attribute__((no_sanitize("thread"))) void run_team(Job* job, int threads) {
#pragma omp parallel num_threads(threads)
    run_share(*job, omp_get_thread_num(), omp_get_num_threads());
}
#endif

void run_serially(int64_t tasks, void (*task)(void*, int64_t), void* context) {
    for (int64_t i = 0; i < tasks; ++i) task(context, i);
}

}  // namespace

int max_threads() {
    int limit = thread_limit.load(std::memory_order_relaxed);
    if (limit == 0) {
#ifdef _OPENMP
        limit = std::clamp(omp_get_max_threads(), 1, most_threads);
#else
        limit = 1;
#endif
        thread_limit = limit;
    }
    return limit;
}

void set_max_threads(int n) {
    if (n < 1 || n > most_threads)
        throw std::invalid_argument("set_max_threads: the number of threads must be at least 1 and at most " +
                                    std::to_string(most_threads) + ", not " + std::to_string(n));
#ifdef _OPENMP
    thread_limit = n;
#else
    thread_limit = 1;
#endif
}

int threads_used() {
    return threads_of_last_run;
}

void run_tasks(int64_t tasks, [[maybe_unused]] double work_per_task, void (*task)(void*, int64_t),
               void* context) {
    if (inside_task) return run_serially(tasks, task, context);
    threads_of_last_run = 1;
#ifdef _OPENMP
    const int threads = int(std::min<int64_t>(max_threads(), tasks));
    if (threads > 1 && double(tasks) * work_per_task >= serial_work && !forked_child) {
        Job job{tasks, task, context, std::min(threads, most_shares)};
        for (int s = 0; s < job.shares; ++s) {
            const int64_t begin = tasks * s / job.shares;
            job.share[s].begin = begin;
            job.share[s].end = tasks * (s + 1) / job.shares;
            job.share[s].next.store(begin + 1, relaxed);
        }
        TSAN_RELEASE(&job.tasks);
        run_team(&job, threads);
        TSAN_ACQUIRE(&job.error);
        threads_of_last_run = job.threads;
        if (job.error) std::rethrow_exception(job.error);
        return;
    }
#endif
    run_serially(tasks, task, context);
}

}  // namespace tinygrad_nm
