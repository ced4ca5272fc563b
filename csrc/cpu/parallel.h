// The only place that knows threads.
//
// A kernel cuts its work into tasks by shape alone, never by the number of threads, and each task writes its
// own part of the result: so any number of threads gives the same bits.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

int max_threads();            // defaults: OMP_NUM_THREADS, else the processors of the affinity mask
void set_max_threads(int n);  // throws std::invalid_argument unless n >= 1; 1 without OpenMP
int threads_used();           // distinct threads that ran a task in this thread's last parallel_for

// Calls task(context, 0 .. tasks-1), each once, in any order. The first exception of a task is rethrown here
// after all threads have stopped; tasks not yet begun are then dropped.
void run_tasks(int64_t tasks, double work_per_task, void (*task)(void* context, int64_t index),
               void* context);

// body(int64_t index) for each task; work_per_task in operations or bytes, about 0.1 ns each. Serial if the
// whole is too little to pay for waking threads, inside another parallel_for, or in a forked child.
template <class Body>
static inline void parallel_for(int64_t tasks, double work_per_task, const Body& body) {
    auto call = [](void* context, int64_t index) { (*static_cast<const Body*>(context))(index); };
    run_tasks(tasks, work_per_task, call, const_cast<Body*>(&body));
}

}  // namespace tinygrad_nm
