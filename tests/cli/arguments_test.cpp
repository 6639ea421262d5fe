#include "mezzotint/cli/arguments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "mezzotint/cli/conversion_options.h"
#include "mezzotint/cli/foreign_options.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/cli/table.h"

namespace mezzotint::cli {
namespace {

TEST(Arguments, UnderscoresBecomeDashesInNamesOnly) {
  std::vector<std::string> arguments{
      "convert", "a_b.safetensors", "--max_memory=1_G", "--layer_config", "my_file", "-o_x", "--", "--as_it_is"};
  normalise_option_names(arguments);
  EXPECT_EQ(arguments, (std::vector<std::string>{"convert", "a_b.safetensors", "--max-memory=1_G", "--layer-config",
                                                 "my_file", "-o_x", "--", "--as_it_is"}));
}

TEST(Arguments, ValuesAndPositionalsAreNoOptions) {
  CLI::App app;
  Context context;
  build_app(app, context);
  EXPECT_FALSE(find_unknown_option(app, {"convert", "a", "-o", "b", "-oFILE", "--exclude=--x", "--", "--nonsense"}));
  EXPECT_FALSE(find_unknown_option(app, {"convert", "-f", "a", "--seed", "-5"}));
  EXPECT_TRUE(find_unknown_option(app, {"convert", "a", "--nonsense"}));
  EXPECT_TRUE(find_unknown_option(app, {"convert", "-fq", "a"})) << "flags are not bundled";
  EXPECT_TRUE(find_unknown_option(app, {"--nonsense", "convert"}));
  EXPECT_TRUE(find_unknown_option(app, {"inspect", "a", "--to", "int8"})) << "an option of another command";
}

TEST(ForeignOptions, NamesAreUniqueAndEveryAnswerIsSaid) {
  std::set<std::string_view> seen;
  for (const ForeignOption& option : foreign_options()) {
    EXPECT_FALSE(option.answer.empty());
    for (std::string_view rest = option.names; !rest.empty();) {
      const auto word = rest.substr(0, rest.find(' '));
      EXPECT_TRUE(seen.insert(word).second) << word;
      EXPECT_EQ(foreign_option(word), option.answer) << word;
      rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    }
  }
  EXPECT_GT(seen.size(), 150u);
}

TEST(ForeignOptions, NoneIsOneOfOurConvertOptions) {
  CLI::App app;
  Context context;
  build_app(app, context);
  const CLI::App* convert = app.get_subcommand("convert");
  for (const CLI::Option* option : convert->get_options())
    for (const auto& name : option->get_lnames()) {
      EXPECT_FALSE(find_unknown_option(app, {"convert", "--" + name}));
    }
}

TEST(ForeignOptions, MayBeCutShortWhereUnique) {
  EXPECT_TRUE(foreign_option("--num-it"));
  EXPECT_FALSE(foreign_option("--q"));
  EXPECT_FALSE(foreign_option("--zzz"));
}

TEST(Sizes, AreReadInBothBases) {
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("512M"), 512ull << 20);
  EXPECT_EQ(parse_size("1GB"), 1000000000u);
  EXPECT_EQ(parse_size("1 gib"), 1ull << 30);
  EXPECT_EQ(parse_size("9.5GiB"), 19ull << 29);
  EXPECT_EQ(parse_size("2t"), 2ull << 40);
  EXPECT_EQ(parse_size("0"), 0u);
  for (const char* bad : {"", "G", "-1G", "1X", "1GiBs", "1e300G", "nan", "1,5G", "0x10"})
    EXPECT_THROW(parse_size(bad), UsageError) << bad;
}

TEST(Sizes, AreWrittenWithThreeDigits) {
  EXPECT_EQ(size_text(0), "0 B");
  EXPECT_EQ(size_text(999), "999 B");
  EXPECT_EQ(size_text(1000), "1.0 kB");
  EXPECT_EQ(size_text(27'140'000'000), "27.1 GB");
  EXPECT_EQ(size_text(999'600'000), "1.0 GB");
  EXPECT_EQ(size_text(123'400'000), "123 MB");
}

TEST(Durations, AreReadable) {
  EXPECT_EQ(duration_text(0.43), "0.4 s");
  EXPECT_EQ(duration_text(12.2), "12 s");
  EXPECT_EQ(duration_text(185), "3 min 05 s");
  EXPECT_EQ(duration_text(3720), "1 h 02 min");
  EXPECT_EQ(duration_text(std::nan("")), "?");
}

TEST(StreamingModes, MeanMemoryBounds) {
  EXPECT_EQ(streaming_mode_memory("balanced"), 1ull << 30);
  EXPECT_GT(streaming_mode_memory("minimal"), streaming_mode_memory("balanced"));
  EXPECT_LT(streaming_mode_memory("aggressive"), streaming_mode_memory("balanced"));
  EXPECT_THROW(streaming_mode_memory("extreme"), UsageError);
}

TEST(Tables, AlignColumns) {
  Table table({"NAME", ">SIZE"});
  table.add({"a", "10"});
  table.add({"long", "2"});
  EXPECT_EQ(table.to_text(), "NAME  SIZE\na       10\nlong     2\n");
}

}  // namespace
}  // namespace mezzotint::cli
