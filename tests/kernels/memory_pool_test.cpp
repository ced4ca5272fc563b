// The pool of blocks for large results.
#include "cpu/memory_pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include "test.h"

using namespace tinygrad_nm;

namespace {

constexpr int64_t block = 100000;

struct Limit {  // sets the limit for one test, and leaves nothing idle
    explicit Limit(int64_t bytes) : before(pool_stats().limit) { pool_set_limit(bytes); }
    ~Limit() {
        pool_set_limit(before);
        pool_empty();
    }
    int64_t before;
};

}  // namespace

TEST(pool_sizes_waste_at_most_an_eighth) {
    for (int64_t bytes : {1, 4096, 65536, 65537, 100000, 1 << 20, (1 << 20) + 1, 123456789}) {
        const int64_t size = pool_block_size(bytes);
        CHECK(size >= bytes);
        CHECK_EQUAL(size % 64, 0);
        CHECK_EQUAL(pool_block_size(size), size);
        if (bytes >= 65536) CHECK(size - bytes <= bytes / 8);
    }
    CHECK_THROWS(pool_block_size(INT64_MAX), std::overflow_error);
}

TEST(pool_gives_a_returned_block_again) {
    const Limit limit(int64_t(1) << 30);
    pool_empty();
    const PoolStats before = pool_stats();
    void* const first = pool_take(block);
    CHECK_EQUAL(reinterpret_cast<uintptr_t>(first) % 64, 0u);
    CHECK_EQUAL(pool_stats().used - before.used, pool_block_size(block));
    void* const other = pool_take(block);
    CHECK(first != other);
    pool_return(first, block);
    CHECK_EQUAL(pool_stats().idle, pool_block_size(block));
    CHECK(pool_take(block - 10) == first);
    CHECK_EQUAL(pool_stats().reused, before.reused + 1);
    CHECK_EQUAL(pool_stats().allocated, before.allocated + 2);
    pool_return(first, block - 10);
    pool_return(other, block);
    CHECK_EQUAL(pool_stats().used, before.used);
    pool_empty();
    CHECK_EQUAL(pool_stats().idle, 0);
}

TEST(pool_is_bounded) {
    const int64_t size = pool_block_size(block);
    const Limit limit(3 * size);
    pool_empty();
    std::vector<void*> blocks;
    for (int i = 0; i < 5; ++i) blocks.push_back(pool_take(block));
    for (void* b : blocks) {
        pool_return(b, block);
        CHECK(pool_stats().idle <= 3 * size);
    }
    CHECK_EQUAL(pool_stats().idle, 3 * size);
    pool_return(pool_take(8 * block), 8 * block);  // larger than the limit: never kept
    CHECK_EQUAL(pool_stats().idle, 3 * size);
    pool_set_limit(size);
    CHECK_EQUAL(pool_stats().idle, size);
    pool_set_limit(0);
    CHECK_EQUAL(pool_stats().idle, 0);
    pool_return(pool_take(block), block);
    CHECK_EQUAL(pool_stats().idle, 0);
}

TEST(pool_holds_little_more_than_was_needed_at_once) {
    const Limit limit(int64_t(4) << 30);
    pool_empty();
    const int64_t mega = 1 << 20;
    pool_return(pool_take(400 * mega), 400 * mega);  // never touched: no page of it is there
    CHECK(pool_stats().idle >= 400 * mega);
    void* const other = pool_take(300 * mega);
    CHECK_EQUAL(pool_stats().idle, 0);
    pool_return(other, 300 * mega);
    pool_return(pool_take(50 * mega), 50 * mega);  // the slack leaves room for this
    CHECK(pool_stats().idle >= 350 * mega);
}

TEST(pool_peak) {
    const Limit limit(int64_t(1) << 30);
    pool_reset_peak();
    const int64_t base = pool_stats().used, size = pool_block_size(block);
    CHECK_EQUAL(pool_stats().peak, base);
    void* const a = pool_take(block);
    void* const b = pool_take(block);
    pool_return(a, block);
    CHECK_EQUAL(pool_stats().peak, base + 2 * size);
    pool_reset_peak();
    CHECK_EQUAL(pool_stats().peak, base + size);
    pool_return(b, block);
}

TEST(pool_without_memory) {
    CHECK_THROWS(pool_take(INT64_MAX / 4), std::bad_alloc);
    CHECK_THROWS(pool_take(INT64_MAX), std::overflow_error);
    void* const a = pool_take(block);  // and it still works
    pool_return(a, block);
}

TEST(pool_from_many_threads) {
    const Limit limit(4 * block);
    const int64_t used = pool_stats().used;
    std::vector<std::thread> threads;
    std::vector<int> clean(8, 1);
    for (int t = 0; t < 8; ++t)
        threads.emplace_back([t, &clean] {
            std::vector<std::pair<unsigned char*, int64_t>> mine;
            for (int i = 0; i < 300; ++i) {
                const int64_t bytes = block * (1 + (i + t) % 3);
                mine.emplace_back(static_cast<unsigned char*>(pool_take(bytes)), bytes);
                std::memset(mine.back().first, t, 1000);
                if (mine.size() < 4) continue;
                for (int k = 0; k < 1000; ++k) clean[size_t(t)] &= mine.front().first[k] == t;
                pool_return(mine.front().first, mine.front().second);
                mine.erase(mine.begin());
                if (i % 50 == 0) pool_empty();
            }
            for (auto [memory, bytes] : mine) pool_return(memory, bytes);
        });
    for (std::thread& thread : threads) thread.join();
    for (int c : clean) CHECK_EQUAL(c, 1);
    CHECK_EQUAL(pool_stats().used, used);
}

TEST(pool_in_a_forked_child) {
    void* const before = pool_take(block);
    const pid_t child = fork();
    if (child == 0) {
        pool_return(before, block);
        pool_return(pool_take(block), block);
        _exit(pool_stats().used >= 0 ? 0 : 1);
    }
    int status = 1;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
    pool_return(before, block);
}
