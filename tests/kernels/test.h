// A test framework of one page: TEST(name) { CHECK(...); } registers and runs itself in main.cpp.
#pragma once
#include <cstdio>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

namespace kernel_tests {

struct Test {
    const char* name;
    void (*run)();
};
inline std::vector<Test>& tests() {
    static std::vector<Test> list;
    return list;
}
inline long checks = 0, failures = 0, skipped = 0;

inline void report(bool ok, const char* file, int line, const std::string& what) {
    ++checks;
    if (ok) return;
    if (++failures <= 50) std::printf("%s:%d: FAILED: %s\n", file, line, what.c_str());
}
// Says that something did not run, and why; counted and printed at the end, never silent.
inline void not_run(const std::string& what, const std::string& why) {
    ++skipped;
    std::printf("%s: not run (%s)\n", what.c_str(), why.c_str());
}
template <class A, class B>
std::string pair_text(const char* text, const A& a, const B& b) {
    std::ostringstream s;
    s.precision(17);
    s << text << ": " << +a << " and " << +b;
    return s.str();
}

}  // namespace kernel_tests

#define TEST(name)                                                     \
    static void test_##name();                                         \
    [[maybe_unused]] static const bool registered_##name =             \
        (kernel_tests::tests().push_back({#name, test_##name}), true); \
    static void test_##name()

#define CHECK(condition) kernel_tests::report(bool(condition), __FILE__, __LINE__, #condition)
// With a message (anything that converts to std::string, made only on failure) that says which case it was.
#define CHECK_THAT(condition, message)                                                          \
    do {                                                                                        \
        const bool ok_ = bool(condition);                                                       \
        kernel_tests::report(ok_, __FILE__, __LINE__,                                           \
                             ok_ ? std::string() : std::string(#condition) + ", " + (message)); \
    } while (0)
// Numbers; NaN equals nothing.
#define CHECK_EQUAL(a, b)                                                                          \
    do {                                                                                           \
        const auto a_ = (a);                                                                       \
        const auto b_ = (b);                                                                       \
        const bool ok_ = a_ == b_;                                                                 \
        kernel_tests::report(ok_, __FILE__, __LINE__,                                              \
                             ok_ ? std::string() : kernel_tests::pair_text(#a " == " #b, a_, b_)); \
    } while (0)
#define CHECK_THROWS(expression, type)                                                   \
    do {                                                                                 \
        bool thrown_ = false;                                                            \
        try {                                                                            \
            (void)(expression);                                                          \
        } catch (const type&) {                                                          \
            thrown_ = true;                                                              \
        }                                                                                \
        kernel_tests::report(thrown_, __FILE__, __LINE__, #expression " throws " #type); \
    } while (0)
