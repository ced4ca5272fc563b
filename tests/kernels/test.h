// A test framework of one page: TEST(name) { CHECK(...); } registers itself, and run_tests() runs it.
#pragma once
#include <cstdio>
#include <cstring>
#include <exception>
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

// Runs the tests whose name contains one of the parts, all without parts, and ends with a line of numbers and
// `where`. Returns main's result.
inline int run_tests(int part_count, const char* const* parts, const std::string& where) {
    int run = 0;
    for (const Test& test : tests()) {
        bool chosen = part_count == 0;
        for (int i = 0; i < part_count; ++i) chosen = chosen || std::strstr(test.name, parts[i]);
        if (!chosen) continue;
        const long before = failures;
        try {
            test.run();
        } catch (const std::exception& e) {
            report(false, test.name, 0, std::string("exception: ") + e.what());
        }
        std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", test.name);
        std::fflush(stdout);
        ++run;
    }
    std::printf("%d tests, %ld checks, %ld failures, %ld not run, %s\n", run, checks, failures, skipped,
                where.c_str());
    return failures || !run;
}

}  // namespace kernel_tests

#define NAMED_TEST(text, name)                                        \
    static void test_##name();                                        \
    [[maybe_unused]] static const bool registered_##name =            \
        (kernel_tests::tests().push_back({text, test_##name}), true); \
    static void test_##name()
#define TEST(name) NAMED_TEST(#name, name)

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
