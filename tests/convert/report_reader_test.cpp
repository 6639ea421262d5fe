#include <cmath>
#include <functional>

#include "convert/conversion.h"
#include "mezzotint/convert/budget/budget.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/convert/report/make_report.h"

// What a person who has nothing but the page of a report can say: which three layers are worst, and what mends them.
namespace mezzotint::convert {
namespace {

// --- a small reader of HTML, which knows nothing of how the page is made
// -----------------------------------------------

struct Node {
  std::string tag;         // "" = text
  std::string attributes;  // as they stand; of text, the text
  std::vector<Node> children;

  std::string attribute(const std::string& name) const {
    const Regex wanted(R"re((?s)^(?:.*\s)?)re" + name + R"re(="([^"]*)".*$)re");
    return wanted.search(attributes) ? wanted.replace(attributes, "$1") : "";
  }
  /// What is seen of it.
  std::string text() const {
    if (tag.empty()) return attributes;
    if (tag == "script" || tag == "style") return "";
    std::string all;
    for (const Node& child : children) all += child.text();
    return all;
  }
  void each(const std::function<void(const Node&)>& visit) const {
    visit(*this);
    for (const Node& child : children) child.each(visit);
  }
  std::vector<const Node*> all(const std::string& wanted) const {
    std::vector<const Node*> found;
    each([&](const Node& node) {
      if (node.tag == wanted) found.push_back(&node);
    });
    return found;
  }
  /// The only one with this tag; fails where there are more or none.
  const Node& one(const std::string& wanted) const {
    const auto found = all(wanted);
    EXPECT_EQ(found.size(), 1u) << wanted << " in " << tag;
    static const Node none;
    return found.empty() ? none : *found.front();
  }
};

std::string decoded(std::string text) {
  const std::pair<const char*, const char*> entities[] = {{"&lt;", "<"},   {"&gt;", ">"},    {"&quot;", "\""},
                                                          {"&#39;", "'"},  {"&times;", "x"}, {"&rarr;", "->"},
                                                          {"&nbsp;", " "}, {"&amp;", "&"}};
  for (const auto& [entity, character] : entities)
    for (size_t at = text.find(entity); at != std::string::npos; at = text.find(entity, at + 1))
      text.replace(at, std::string(entity).size(), character);
  return text;
}

Node parse(const std::string& html) {
  static const std::set<std::string> kEmpty = {"meta", "input", "br", "link", "img"};
  Node root{"root", "", {}};
  std::vector<Node*> open = {&root};
  for (size_t at = html.find('>') + 1; at < html.size();) {
    if (html[at] != '<') {
      const size_t end = std::min(html.find('<', at), html.size());
      open.back()->children.push_back({"", decoded(html.substr(at, end - at)), {}});
      at = end;
      continue;
    }
    const size_t end = std::min(html.find('>', at), html.size());
    std::string inside = html.substr(at + 1, end - at - 1);
    at = end + 1;
    if (inside.starts_with('/')) {
      if (open.size() > 1) open.pop_back();
      continue;
    }
    const bool closed = inside.ends_with('/');
    if (closed) inside.pop_back();
    const std::string tag = inside.substr(0, inside.find_first_of(" \n"));
    open.back()->children.push_back({tag, decoded(inside.substr(tag.size())), {}});
    if (closed || kEmpty.contains(tag)) continue;
    if (tag == "script" || tag == "style") {
      at = html.find("</" + tag + ">", at) + tag.size() + 3;
      continue;
    }
    open.push_back(&open.back()->children.back());
  }
  return root;
}

/// A word of a shell's command line, quotes and all.
std::string unquoted(const std::string& word) {
  std::string plain;
  bool quoted = false;
  for (size_t i = 0; i < word.size(); ++i) {
    if (word[i] == '\'')
      quoted = !quoted;
    else if (word[i] == '\\' && !quoted && i + 1 < word.size())
      plain += word[++i];
    else
      plain += word[i];
  }
  EXPECT_FALSE(quoted) << word;
  return plain;
}

/// What somebody takes away from the page.
struct Read {
  std::string heading, verdict;
  std::vector<std::string> worst;              // names, in their order
  std::map<std::string, std::string> options;  // option -> value, of what is said to mend them
  std::vector<std::string> sections;           // ids, in their order
  size_t text_before = 0;                      // characters to be read up to the end of what mends them
  std::map<std::string, double> errors;        // of every layer, from the table
};

/// The first percentage of each line.
std::map<std::string, double> errors_of(const Node& table) {
  const Regex percentage(R"(^.*?([0-9.]+(?:e[-+]?[0-9]+)?) ?%.*$)");
  std::map<std::string, double> errors;
  for (const Node* line : table.all("tr"))
    for (const Node* cell : line->all("td"))
      if (percentage.search(cell->text())) {
        errors[line->one("th").text()] = std::stod(percentage.replace(cell->text(), "$1")) / 100;
        break;
      }
  return errors;
}

Read read_page(const std::string& html) {
  const Node page = parse(html);
  Read found;
  bool before = true;
  for (const Node& child : page.one("main").children) {
    const std::string id = child.attribute("id");
    if (child.tag == "section") found.sections.push_back(id);
    if (id == "layers") found.errors = errors_of(child.one("tbody"));
    if (before) found.text_before += child.text().size();
    if (id != "worst") continue;
    before = false;
    found.heading = child.one("h2").text();
    for (const Node* item : child.one("ol").all("li")) found.worst.push_back(item->one("b").text());
    for (const Node& part : child.children)
      if (part.tag == "p") found.verdict = part.text();
    for (const Node* list : child.all("ul"))
      for (const Node* item : list->all("li")) {
        const std::string option = item->one("code").text();
        const size_t space = option.find(' ');
        found.options[option.substr(0, space)] = unquoted(option.substr(space + 1));
        // Copying it gives what is seen.
        EXPECT_EQ(item->one("button").attribute("data-copy"), option);
      }
  }
  return found;
}

class ReportReader : public Conversion {
 protected:
  /// Twelve layers; each of `ruined` has one weight that is this many times the others, so that the layer's only
  /// scale leaves little to the rest.
  test::RawFile model(const std::map<std::string, float>& ruined) {
    test::RawFile file;
    for (int block = 0; block < 6; ++block)
      for (const std::string part : {"q", "up"}) {
        const std::string name = "blocks." + std::to_string(block) + "." + part;
        const auto spike = ruined.find(name);
        auto values = test::make_values(test::awkward_inputs()[0], rng_, 48, 64);
        if (spike != ruined.end()) values[77] = spike->second * *std::max_element(values.begin(), values.end());
        file.tensors.emplace_back(name + ".weight", test::RawTensor{"F32", {48, 64}, test::raw_bytes(values)});
      }
    return file;
  }
  std::string page(const ConvertOptions& options) {
    const auto source = checkpoint::Model::open(in());
    plan_ = make_plan(source, out(), options, 2);
    const Outcome outcome = execute(plan_, source, {.overwrite = true, .measure = true});
    return report_html(make_report(plan_, outcome, outcome.layers));
  }

  const std::map<std::string, float> ruined_ = {{"blocks.4.up", 20}, {"blocks.0.q", 10}, {"blocks.2.up", 6}};
  std::mt19937_64 rng_ = test::test_rng();
};

TEST_F(ReportReader, NamesTheWorstLayersAndWhatMendsThemFromThePageAlone) {
  test::write_raw(in(), model(ruined_));
  const ConvertOptions options{.to = "int8_tensorwise", .effort = 0};
  const Read found = read_page(page(options));

  // At the top: in front of every other section, within what a screen or two hold.
  ASSERT_FALSE(found.sections.empty());
  EXPECT_EQ(found.sections.front(), "worst");
  EXPECT_LT(found.text_before, 1500u);
  EXPECT_EQ(found.heading, "The three worst layers");
  EXPECT_TRUE(found.verdict.starts_with("3 of 12 layers")) << found.verdict;
  EXPECT_EQ(found.worst, (std::vector<std::string>{"blocks.4.up", "blocks.0.q", "blocks.2.up"}));

  // The table says the same, of all layers.
  ASSERT_EQ(found.errors.size(), 12u);
  std::vector<double> spoilt, sound;
  for (const auto& [name, error] : found.errors) (ruined_.contains(name) ? spoilt : sound).push_back(error);
  const double least_spoilt = *std::min_element(spoilt.begin(), spoilt.end());
  const double worst_sound = *std::max_element(sound.begin(), sound.end());
  EXPECT_LT(3 * worst_sound, least_spoilt);

  // The first option: a threshold between both.
  ASSERT_TRUE(found.options.contains("--promote-above"));
  const double threshold = std::stod(found.options.at("--promote-above"));
  EXPECT_LT(worst_sound, threshold);
  EXPECT_LT(threshold, least_spoilt);
  // The second: a pattern of these names and no other.
  ASSERT_TRUE(found.options.contains("--exclude"));
  const Regex excluded(found.options.at("--exclude"));
  for (const auto& [name, error] : found.errors) EXPECT_EQ(excluded.search(name), ruined_.contains(name)) << name;

  // Both do what the page says.
  ConvertOptions kept = options;
  kept.exclude = {found.options.at("--exclude")};
  const Read after = read_page(page(kept));
  EXPECT_EQ(after.errors.size(), 9u);
  EXPECT_TRUE(after.verdict.starts_with("No layer stands out")) << after.verdict;
  EXPECT_FALSE(after.options.contains("--exclude"));
  for (const std::string& name : after.worst) EXPECT_FALSE(ruined_.contains(name)) << name;

  const auto source = checkpoint::Model::open(in());
  const Budget promoted = choose_budget(source, out(), options, {.promote_above = threshold});
  std::set<std::string> raised;
  for (const auto& layer : promoted.layers)
    if (!layer.raised_from.empty()) raised.insert(layer.layer);
  EXPECT_EQ(raised, (std::set<std::string>{"blocks.0.q", "blocks.2.up", "blocks.4.up"}));
  for (const auto& [name, error] : read_page(page(promoted.options)).errors) EXPECT_LT(error, threshold) << name;
}

TEST_F(ReportReader, FindsNothingToMendWhereNothingIsRuined) {
  test::write_raw(in(), model({}));
  const Read found = read_page(page({.to = "int8_tensorwise", .effort = 0}));
  EXPECT_TRUE(found.verdict.starts_with("No layer stands out")) << found.verdict;
  EXPECT_EQ(found.worst.size(), 3u);
  EXPECT_FALSE(found.options.contains("--exclude"));
  EXPECT_FALSE(found.options.contains("--promote-above"));
  EXPECT_TRUE(found.options.contains("--effort"));
}

TEST_F(ReportReader, OneRuinedLayerIsNotHiddenByTheOthers) {
  test::write_raw(in(), model({{"blocks.5.q", 12}}));
  const Read found = read_page(page({.to = "int8_tensorwise", .effort = 0}));
  EXPECT_TRUE(found.verdict.starts_with("1 of 12 layers")) << found.verdict;
  ASSERT_EQ(found.worst.size(), 3u);
  EXPECT_EQ(found.worst.front(), "blocks.5.q");
  const Regex excluded(found.options.at("--exclude"));
  for (const auto& [name, error] : found.errors) EXPECT_EQ(excluded.search(name), name == "blocks.5.q") << name;
}

}  // namespace
}  // namespace mezzotint::convert
