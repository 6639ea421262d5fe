#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "mezzotint/convert/regex.h"
#include "mezzotint/convert/report/findings.h"
#include "mezzotint/convert/report/text.h"
#include "report_sample.h"

namespace mezzotint::convert {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

// --- a small reader of HTML ---------------------------------------------------------------------------------------

struct Page {
  std::string problem;             // "" = every tag is closed in its turn
  std::set<std::string> elements;  // names that occur
  std::string text;                // what a reader sees, entities as they stand
  std::string report;              // the JSON
};

Page read_report_page(const std::string& html) {
  static const std::set<std::string> kEmpty = {"meta", "input", "br"};
  Page page;
  std::vector<std::string> open;
  size_t at = html.find('>') + 1;  // the doctype
  while (at < html.size()) {
    if (html[at] != '<') {
      const size_t end = std::min(html.find('<', at), html.size());
      page.text += html.substr(at, end - at);
      at = end;
      continue;
    }
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return page.problem = "a tag does not end", page;
    const std::string tag = html.substr(at + 1, end - at - 1);
    at = end + 1;
    // Quotes in pairs: no attribute swallows a tag.
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return page.problem = "quotes in <" + tag + ">", page;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1))
        return page.problem = "</" + tag.substr(1) + "> in " + (open.empty() ? "nothing" : open.back()), page;
      open.pop_back();
      continue;
    }
    const std::string name = tag.substr(0, tag.find_first_of(" /\n"));
    if (!Regex("[a-z][a-z0-9]*").fullmatch(name)) return page.problem = "element '" + name + "'", page;
    page.elements.insert(name);
    if (kEmpty.count(name) > 0 || tag.back() == '/') continue;
    if (name == "script" || name == "style") {
      const size_t close = html.find("</" + name + ">", at);
      if (close == std::string::npos) return page.problem = name + " does not end", page;
      if (tag.find("id=\"report\"") != std::string::npos) page.report = html.substr(at, close - at);
      at = close + name.size() + 3;
      continue;
    }
    open.push_back(name);
  }
  if (!open.empty()) page.problem = "not closed: " + open.back();
  return page;
}

// Independent of the page's own.
std::string escape_for_test(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '&'    ? "&amp;"
           : c == '<'  ? "&lt;"
           : c == '>'  ? "&gt;"
           : c == '"'  ? "&quot;"
           : c == '\'' ? "&#39;"
                       : std::string(1, c);
  return out;
}

Report full_report() {
  Report report = test::sample_report(130);
  report.effort = 0;
  report.layers[7].fate = Fate::kept;
  report.layers[8].fate = Fate::unmeasured;
  report.layers[9].optimizer = "ldlq";
  report.layers[9].objective_ratio = 0.7;
  report.layers[9].seconds = 0.25;
  test::set_error(report.layers[20], 0.21);
  test::set_error(report.layers[21], std::numeric_limits<double>::infinity());
  report.layers.push_back(report.layers[7]);
  report.layers.back().name = "head";
  report.frontier = {{90'000, 5, 4, 0.08, {{"four", 100}, {"eight", 30}}, false},
                     {130'000, 8, 1, 0.026, {{"eight", 130}}, true}};
  report.recipe = R"({"version":1,"to":"eight"})";
  report.notes = {"Lossy. `--preset NAME` chooses."};
  report.warnings = {{"Something is odd.", "--odd"}};
  report.times = {{"conversion", 12.5}};
  report.cpu = "a CPU";
  return report;
}

TEST(ReportPage, IsWellFormedAndFetchesNothing) {
  for (const Report& report : {full_report(), test::sample_report(3), test::sample_report(1), Report{}}) {
    const std::string html = report_html(report);
    const Page page = read_report_page(html);
    EXPECT_EQ(page.problem, "");
    EXPECT_THAT(html, Not(HasSubstr("http:")));
    EXPECT_THAT(html, Not(HasSubstr("https:")));
    EXPECT_FALSE(Regex(R"((src|href)\s*=|url\(|@import|fetch\(|XMLHttp)").search(html));
    EXPECT_EQ(html.find_first_of("\r\b\f"), std::string::npos);
  }
  // The reader itself sees what is wrong.
  EXPECT_NE(read_report_page("<!doctype html><p><b></p></b>").problem, "");
  EXPECT_NE(read_report_page("<!doctype html><p><img src=x").problem, "");
  EXPECT_NE(read_report_page("<!doctype html><p>").problem, "");
}

TEST(ReportPage, SaysTheWorstLayersAndTheOptionFirst) {
  Report report = test::sample_report(40);
  test::set_error(report.layers[5], 0.30);
  test::set_error(report.layers[20], 0.20);
  test::set_error(report.layers[11], 0.13);
  const std::string text = read_report_page(report_html(report)).text;
  const size_t map = text.find("block by block");
  ASSERT_NE(map, std::string::npos);
  size_t last = 0;
  for (const char* word : {"blocks.1.b", "blocks.5.a", "blocks.2.d", "--promote-above", "--exclude"}) {
    const size_t at = text.find(word);
    ASSERT_NE(at, std::string::npos) << word;
    EXPECT_LT(last, at) << word;
    EXPECT_LT(at, map) << word;
    last = at;
  }
}

TEST(ReportPage, NamesCannotBreakIt) {
  const std::string evil = "a<script>alert(1)</script>\"'&`\x01.</script><b>";
  Report report = test::sample_report(8);
  for (auto& layer : report.layers) layer.name += evil, layer.to += "<i>", layer.note = evil, layer.optimizer = evil;
  report.title = report.input = report.output = report.preset = report.preset_reason = report.command = report.cpu =
      evil;
  report.recipe = "{\"to\":\"</script>\"}";
  report.notes = {evil};
  report.warnings = {{evil, evil}};
  report.times = {{evil, 1}};
  report.frontier = {{1000, 8, 1, 0.02, {{evil, 8}}, true}};
  const std::string html = report_html(report);
  const Page page = read_report_page(html);
  EXPECT_EQ(page.problem, "");
  EXPECT_EQ(page.elements.count("img"), 0u);
  EXPECT_THAT(html, Not(HasSubstr("<script>alert")));
  const json data = json::parse(page.report);
  EXPECT_EQ(data["layers"][0]["name"], "blocks.0.a" + evil);
  EXPECT_EQ(data["title"], evil);
  report.input = "not UTF-8: \xff";
  EXPECT_NO_THROW(report_html(report));
  EXPECT_NO_THROW(report_json(report));
}

TEST(ReportPage, ShowsTheNumbersOfTheJson) {
  const Report report = full_report();
  const json data = json::parse(report_json(report));
  const Page page = read_report_page(report_html(report));
  EXPECT_EQ(json::parse(page.report), data) << "the page holds its twin";
  EXPECT_THAT(page.text, HasSubstr(percent_text(data["median_relative_error"])));
  EXPECT_THAT(page.text, HasSubstr(size_text(data["bytes_out"])));
  const ReportSummary summary = summarize(report);
  for (const size_t i : {summary.worst[1], summary.worst[60]}) {
    const json& layer = data["layers"][i];
    EXPECT_EQ(layer["relative_error"], report.layers[i].errors.relative_error());
    EXPECT_EQ(layer["sqnr_db"], report.layers[i].errors.sqnr_db());
    EXPECT_THAT(page.text, HasSubstr(layer["name"].get<std::string>() + "BF16 &rarr; eight" +
                                     percent_text(layer["relative_error"])));
  }
  EXPECT_TRUE(data["layers"][21]["relative_error"].is_null()) << "JSON has no infinity";
  for (const json& warning : data["findings"]["warnings"]) {
    EXPECT_THAT(page.text, HasSubstr(escape_for_test(warning["text"])));
    EXPECT_THAT(page.text, HasSubstr(escape_for_test(warning["mend"])));
  }
  for (const json& point : data["frontier"])
    EXPECT_THAT(page.text, HasSubstr("--target-size " + point["bytes"].dump()));
  uint64_t counted = data["histograms"][0]["errors_below"];
  for (const json& count : data["histograms"][0]["errors"]) counted += count.get<uint64_t>();
  EXPECT_EQ(counted, 1000u);
  EXPECT_EQ(data["histograms"][0]["starts"].size(), data["histograms"][0]["errors"].size() + 1);
  // The control: another number, another page.
  Report other = report;
  test::set_error(other.layers[20], 0.22);
  EXPECT_NE(json::parse(report_json(other)), data);
}

TEST(ReportPage, StaysSmallForTwoThousandLayers) {
  Report report = test::sample_report(2000);
  for (auto& layer : report.layers) {
    layer.name = "model.diffusion_model." + layer.name + ".self_attn.projection";
    layer.note = "quantized";
    layer.optimizer = "ldlq+cd";
    layer.objective_ratio = 0.6123456789;
    layer.seconds = 0.1234567;
  }
  EXPECT_LT(report_html(report).size(), 1'500'000u);
}

}  // namespace
}  // namespace mezzotint::convert
