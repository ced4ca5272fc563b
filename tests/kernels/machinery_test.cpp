// Threads, scratch memory, checked arithmetic and the choice of an instruction set.
#include <atomic>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cpu/arena.h"
#include "cpu/parallel.h"
#include "shared/checked.h"
#include "shared/dispatch.h"
#include "test.h"

using namespace tinygrad_nm;

namespace {

constexpr double much = 1e6;  // work that is worth threads

struct ThreadLimit {  // sets the number of threads for one test
    explicit ThreadLimit(int n) : before(max_threads()) { set_max_threads(n); }
    ~ThreadLimit() { set_max_threads(before); }
    int before;
};

}  // namespace

TEST(parallel_runs_each_task_once) {
    for (int threads : {1, 2, 3, 8}) {
        const ThreadLimit limit(threads);
        for (int64_t tasks : {0, 1, 2, 7, 1000}) {
            std::vector<int> runs(size_t(tasks), 0);
            parallel_for(tasks, much, [&](int64_t i) { ++runs[size_t(i)]; });
            int64_t once = 0;
            for (int r : runs) once += r == 1;
            CHECK_EQUAL(once, tasks);
            if (max_threads() > 1)
                CHECK_EQUAL(threads_used(), int(std::max<int64_t>(1, std::min<int64_t>(threads, tasks))));
        }
    }
}

TEST(parallel_is_serial_for_little_work_and_inside_a_task) {
    const ThreadLimit limit(4);
    parallel_for(100, 1, [](int64_t) {});
    CHECK_EQUAL(threads_used(), 1);
    std::atomic<int64_t> inner{0}, foreign{0};
    parallel_for(4, much, [&](int64_t) {
        const std::thread::id self = std::this_thread::get_id();
        parallel_for(10, much, [&](int64_t) {
            ++inner;
            foreign += std::this_thread::get_id() != self;
        });
    });
    CHECK_EQUAL(inner.load(), 40);
    CHECK_EQUAL(foreign.load(), 0);
}

TEST(parallel_exceptions_come_out) {
    for (int threads : {1, 4}) {
        const ThreadLimit limit(threads);
        CHECK_THROWS(parallel_for(64, much,
                                  [](int64_t i) {
                                      if (i % 2) throw std::bad_alloc();
                                  }),
                     std::bad_alloc);
        CHECK_THROWS(parallel_for(64, much, [](int64_t) { Scratch more_than_there_is(INT64_MAX / 4, 2); }),
                     std::bad_alloc);
        std::atomic<int64_t> runs{0};
        parallel_for(64, much, [&](int64_t) { ++runs; });  // and the threads still work
        CHECK_EQUAL(runs.load(), 64);
    }
}

TEST(parallel_from_several_threads_at_once) {
    const ThreadLimit limit(2);
    std::atomic<int64_t> sum{0};
    std::vector<std::thread> callers;
    for (int t = 0; t < 3; ++t)
        callers.emplace_back([&] {
            for (int r = 0; r < 20; ++r) parallel_for(10, much, [&](int64_t i) { sum += i; });
        });
    for (std::thread& t : callers) t.join();
    CHECK_EQUAL(sum.load(), 3 * 20 * 45);
}

TEST(parallel_limit) {
    const int before = max_threads();
    CHECK_THROWS(set_max_threads(0), std::invalid_argument);
    CHECK_THROWS(set_max_threads(-1), std::invalid_argument);
    CHECK_EQUAL(max_threads(), before);
    CHECK(max_threads() >= 1);
}

TEST(arena_stacks_aligned_memory) {
    const Scratch a(100, 4);
    char* p = static_cast<char*>(a.data);
    p[0] = p[399] = 1;
    for (int64_t bytes : {0, 1, 64, 5000, 3 << 20, 100 << 20}) {
        const Scratch b(bytes, 1), c(bytes, 1);
        CHECK_EQUAL(reinterpret_cast<uintptr_t>(b.data) % 64, 0u);
        CHECK_EQUAL(reinterpret_cast<uintptr_t>(c.data) % 64, 0u);
        char *q = static_cast<char*>(b.data), *r = static_cast<char*>(c.data);
        for (int64_t i = 0; i < bytes; i += 4096) q[i] = 2, r[i] = 3;
        if (bytes > 0) CHECK_EQUAL(q[0], 2);
        CHECK(b.data != c.data);
    }
    CHECK_EQUAL(p[0] + p[399], 2);
}

TEST(arena_is_reused_and_bounded) {
    { const Scratch a(int64_t(2) << 20, 1); }
    const int64_t before = arena_bytes();
    void* first = nullptr;
    for (int i = 0; i < 10; ++i) {
        const Scratch a(int64_t(2) << 20, 1);
        if (i == 0) first = a.data;
        CHECK(a.data == first);
        CHECK_EQUAL(arena_bytes(), before);
    }
    { const Scratch a(int64_t(200) << 20, 1); }
    { const Scratch a(1, 1); }
    CHECK(arena_bytes() <= before + (int64_t(64) << 20));
    int64_t inside = 0;
    std::thread([&] {
        const Scratch a(int64_t(1) << 20, 1);
        inside = arena_bytes();
    }).join();
    CHECK(inside > arena_bytes());  // a thread that ends gives its arena back
}

TEST(checked_arithmetic) {
    CHECK_EQUAL(checked_product("x", {3, 5, 7}), 105);
    CHECK_EQUAL(checked_product("x", {}), 1);
    CHECK_EQUAL(checked_product("x", {INT64_MAX, 4, 0}), 0);
    CHECK_EQUAL(checked_product("x", {-3, 5}), -15);
    CHECK_EQUAL(checked_add("x", INT64_MAX, -1), INT64_MAX - 1);
    CHECK_EQUAL(checked_subtract("x", 3, 5), -2);
    CHECK_THROWS(checked_product("x", {int64_t(1) << 32, int64_t(1) << 31}), std::overflow_error);
    CHECK_THROWS(checked_add("x", INT64_MAX, 1), std::overflow_error);
    CHECK_THROWS(checked_subtract("x", INT64_MIN, 1), std::overflow_error);
    CHECK_THROWS(Scratch(INT64_MAX / 2, 8), std::overflow_error);
    CHECK_THROWS(Scratch(INT64_MAX, 1), std::overflow_error);
    try {
        checked_add("conv2d", INT64_MAX, 1);
    } catch (const std::overflow_error& e) {
        CHECK_EQUAL(std::string(e.what()).find("conv2d: "), 0u);
    }
}

TEST(dispatch_by_name) {
    const std::string before = current_isa().name;
    CHECK_THROWS(set_isa("no such set"), std::invalid_argument);
    CHECK_EQUAL(before == current_isa().name, true);
    for (const Isa& isa : isas()) {
        if (isa.available) {
            set_isa(isa.kernels->name);
            CHECK(&current_isa() == isa.kernels);
        } else {
            CHECK_THROWS(set_isa(isa.kernels->name), std::invalid_argument);
        }
    }
    set_isa(before);
}
