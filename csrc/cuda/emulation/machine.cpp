// Launches: what the architecture allows, and in which order the blocks run.
#include "cuda/emulation/machine.h"

#include <pthread.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string_view>
#include <utility>

#include "cuda/emulation/block.h"
#include "cuda/emulation/watch.h"

namespace tinygrad_nm::emulation {

Place place;

namespace {

Order order = Order::forward;
unsigned order_seed = 0;
std::map<std::string, long, std::less<>> launch_counts;
std::mutex device;

// The kernel as the source has it, without the parentheses that its commas need: "gemm_tiles<T, Tile>".
std::string_view source_name(const LaunchShape& shape) {
    std::string_view name = shape.kernel;
    if (name.starts_with('(') && name.ends_with(')')) name = name.substr(1, name.size() - 2);
    return name;
}
// Its function: "gemm_tiles".
std::string_view function_name(const LaunchShape& shape) {
    std::string_view name = source_name(shape);
    name = name.substr(0, name.find('<'));
    return name.substr(name.rfind(':') + 1);
}

void count_launch(const LaunchShape& shape) {
    const std::string_view name = function_name(shape);
    const auto found = launch_counts.find(name);
    if (found == launch_counts.end())
        launch_counts.emplace(name, 1);
    else
        ++found->second;
}

void check_shape(const LaunchShape& s) {
    const auto refuse = [&](const std::string& what) {
        throw std::invalid_argument(std::string(source_name(s)) + ": a launch of grid " + text(s.grid) +
                                    ", block " + text(s.block) + ", " + std::to_string(s.dynamic_shared) +
                                    " bytes of dynamic shared memory, but " + what);
    };
    const Index& b = s.block;
    if (s.grid.x == 0 || s.grid.y == 0 || s.grid.z == 0) refuse("a grid has at least one block");
    if (s.grid.x > 0x7fffffffu || s.grid.y > 65535 || s.grid.z > 65535)
        refuse("a grid has at most (2147483647, 65535, 65535) blocks");
    if (b.x == 0 || b.y == 0 || b.z == 0) refuse("a block has at least one thread");
    if (b.x > most_threads || b.y > most_threads || b.z > 64 || b.x * b.y * b.z > most_threads)
        refuse("a block has at most " + std::to_string(most_threads) + " threads, and 64 along z");
    if (s.dynamic_shared > most_shared(s.capability))
        refuse("a block of this architecture has at most " + std::to_string(most_shared(s.capability)));
}

void prepare_block(const LaunchShape& shape, void (*body)(void*), void* context) {
    block.launch = &shape, block.body = body, block.context = context;
    block.size = shape.block.x * shape.block.y * shape.block.z;
    block.warps.resize((block.size + warp_size - 1) / warp_size);
    block.variables.clear();
    block.shared_end = block.static_bytes = 0;
    block.failure.reset();
    while (block.threads.size() < block.size) block.threads.push_back(std::make_unique<Thread>());
    for (unsigned i = 0; i < block.size; ++i) block.threads[i]->index = index_of(i, shape.block);
    place.block_size = shape.block, place.grid_size = shape.grid;
}

[[noreturn]] void throw_failure(const LaunchShape& shape) {
    throw std::runtime_error(std::string(source_name(shape)) + ", block " + text(place.block) + ", thread " +
                             text(me().index) + ": " + block.failure->what + text(block.failure->site));
}

}  // namespace

std::string text(const Index& i) {
    std::string all = "(";
    return all.append(std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")");
}
Index index_of(uint64_t number, const Index& size) {
    return {unsigned(number % size.x), unsigned(number / size.x % size.y),
            unsigned(number / size.x / size.y)};
}

std::unique_lock<std::mutex> lock_device() {
    [[maybe_unused]] static const int forks_wait =
        pthread_atfork([] { device.lock(); }, [] { device.unlock(); }, [] { device.unlock(); });
    return std::unique_lock(device);
}

void set_order(Order new_order, unsigned seed) {
    order = new_order, order_seed = seed;
}
const std::map<std::string, long, std::less<>>& launches() {
    return launch_counts;
}

void run_grid(const LaunchShape& shape, void (*body)(void*), void* context, size_t context_bytes) {
    check_shape(shape);
    count_launch(shape);
    prepare_block(shape, body, context);
    const WatchedLaunch watched(context, context_bytes);

    const uint64_t blocks = uint64_t(shape.grid.x) * shape.grid.y * shape.grid.z;
    std::vector<uint64_t> shuffled_blocks(order == Order::shuffled ? blocks : 0);
    std::vector<unsigned> threads(block.size);
    std::iota(shuffled_blocks.begin(), shuffled_blocks.end(), uint64_t(0));
    std::iota(threads.begin(), threads.end(), 0u);
    std::minstd_rand random(order_seed);
    std::shuffle(shuffled_blocks.begin(), shuffled_blocks.end(), random);
    if (order == Order::reverse) std::reverse(threads.begin(), threads.end());
    for (uint64_t i = 0; i < blocks; ++i) {
        if (order == Order::shuffled) std::shuffle(threads.begin(), threads.end(), random);
        const uint64_t number = order == Order::forward   ? i
                                : order == Order::reverse ? blocks - 1 - i
                                                          : shuffled_blocks[i];
        place.block = index_of(number, shape.grid);
        run_block(threads);
        if (block.exception) std::rethrow_exception(std::exchange(block.exception, nullptr));
        if (block.failure) throw_failure(shape);
    }
}

}  // namespace tinygrad_nm::emulation
