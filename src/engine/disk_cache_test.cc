// Prompts found again by a later engine: the same bits as without, whatever lies in the folder.
#include "engine/disk_cache.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "model/tiny_config_test.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

ModelConfig config(bool mla) {
  ModelConfig c = mla ? tiny_moe_config(50) : tiny_dense_config(50);
  if (mla) c.num_nextn_predict_layers = 1;
  return c;
}

Ids random_ids(int64_t n, uint64_t seed) {
  Rng rng(seed);
  Ids out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(rng.below(50)));
  return out;
}

struct DiskCacheTest : testing::Test {
  DiskCacheTest() : folder(fs::temp_directory_path() / "wels_disk_cache_XXXXXX") {
    CHECK(mkdtemp(folder.data()) != nullptr);
    model = make(true, 3);
  }
  ~DiskCacheTest() override { fs::remove_all(folder); }
  std::unique_ptr<Model> make(bool mla, uint64_t seed) {
    auto m = std::make_unique<Model>(config(mla));
    m->init(DType::kF32, seed, false);
    return m;
  }
  GenerateRequest ask(Ids prompt, Reuse reuse = Reuse::kExact) {
    GenerateRequest r;
    r.prompt = std::move(prompt);
    r.max_new_tokens = 12;
    r.sampling.temperature = 1;
    r.reuse = reuse;
    return r;
  }
  // In an engine of its own: a life of the program.
  GenerateResult run(GenerateRequest r, std::optional<DType> type = {}) {
    CacheOptions cache{.folder = folder, .folder_bytes = limit, .dtype = type};
    return Engine(*dev, *model, DType::kF32, 512, cache).run({std::move(r)})[0];
  }
  GenerateResult without(GenerateRequest r) {
    r.reuse = Reuse::kNone;
    return Engine(*dev, *model, DType::kF32, 512).run({std::move(r)})[0];
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> out;
    for (const auto& e : fs::directory_iterator(folder)) out.push_back(e.path());
    std::sort(out.begin(), out.end());
    return out;
  }

  std::string folder;
  int64_t limit = 1 << 30;
  std::unique_ptr<Device> dev = make_device("cpu");
  std::unique_ptr<Model> model;
};

TEST_F(DiskCacheTest, ALaterEngineFindsThePagesAndSaysTheSameBitForBit) {
  for (bool mla : {true, false}) {
    model = make(mla, 3);
    Ids prompt = random_ids(200, 1), longer = prompt;
    longer.resize(150);
    for (int32_t id : random_ids(90, 2)) longer.push_back(id);
    for (const Ids& ids : {prompt, longer}) {
      GenerateResult want = without(ask(ids));
      GenerateResult first = run(ask(ids)), second = run(ask(ids));
      EXPECT_EQ(first.cached_tokens, ids == prompt ? 0 : 128);
      EXPECT_EQ(second.cached_tokens, ids == prompt ? 192 : 192);
      for (const GenerateResult& got : {first, second}) {
        EXPECT_EQ(got.tokens, want.tokens);
        EXPECT_EQ(got.logp, want.logp);
      }
    }
    EXPECT_EQ(run(ask(prompt, Reuse::kNone)).cached_tokens, 0);
    EXPECT_EQ(run(ask(prompt, Reuse::kAny)).cached_tokens, 192);
  }
}

TEST_F(DiskCacheTest, AModuleFindsTheRowsThatItHasSeen) {
  GenerateRequest r = ask(random_ids(200, 1));
  GenerateResult want = without(r);
  EXPECT_EQ(run(r).cached_tokens, 0);  // the module looked away
  r.speculate = Speculate::kMtp;
  r.drafts = 2;
  EXPECT_EQ(run(r).cached_tokens, 0);
  GenerateResult got = run(r);
  EXPECT_GE(got.cached_tokens, 128);
  EXPECT_EQ(got.tokens, want.tokens);
  EXPECT_EQ(got.logp, want.logp);
}

TEST_F(DiskCacheTest, OtherModelsTypesAndScopesDoNotShare) {
  GenerateRequest r = ask(random_ids(200, 1));
  run(r);
  EXPECT_EQ(run(r, DType::kQ8_0).cached_tokens, 0);
  EXPECT_EQ(run(r, DType::kQ8_0).cached_tokens, 192);
  r.scope = "another account";
  EXPECT_EQ(run(r).cached_tokens, 0);
  EXPECT_EQ(run(r).cached_tokens, 192);
  model = make(true, 4);
  EXPECT_EQ(run(r).cached_tokens, 0);
}

TEST_F(DiskCacheTest, DamagedCutAndForeignFilesAreMisses) {
  GenerateRequest r = ask(random_ids(200, 1));
  GenerateResult want = without(r);
  run(r);
  std::vector<fs::path> good = files();
  ASSERT_EQ(good.size(), 3u);
  std::map<fs::path, std::string> content;
  for (const fs::path& p : good) content[p] = read_file(p);
  auto write = [](const fs::path& p, const std::string& text) {
    std::ofstream(p, std::ios::binary | std::ios::trunc) << text;
  };
  size_t size = content[good[0]].size();
  std::vector<std::function<std::string(std::string)>> harms = {
      [](std::string) { return std::string(); },
      [](std::string s) { return s.substr(0, 20); },
      [](std::string s) { return s.substr(0, s.size() - 1); },
      [](std::string s) { return s + "x"; },
      [](std::string) { return std::string("not a page at all"); },
      [size](std::string) { return std::string(size, '\xff'); },
  };
  for (size_t at = 0; at < size; at += at < 360 ? 3 : 1009) {
    harms.push_back([at](std::string s) {
      s[at] = static_cast<char>(s[at] ^ 16);
      return s;
    });
  }
  for (size_t h = 0; h < harms.size(); ++h) {
    for (const fs::path& p : good) write(p, harms[h](content[p]));
    GenerateResult got = run(r);
    EXPECT_EQ(got.tokens, want.tokens) << h;
    EXPECT_EQ(got.logp, want.logp) << h;
    EXPECT_EQ(got.cached_tokens, 0) << h;
    // What was computed instead has taken the place of the damaged files.
    EXPECT_EQ(run(r).cached_tokens, 192) << h;
  }
  // Each other's content, a folder with a page's name, and names that are none.
  write(good[0], content[good[1]]);
  write(good[1], content[good[0]]);
  EXPECT_EQ(run(r).logp, want.logp);
  fs::remove(good[2]);
  fs::create_directory(good[2]);
  write(folder + "/notes.txt", "mine");
  write(folder + "/0123.kv", "mine");
  EXPECT_EQ(run(r).logp, want.logp);
  EXPECT_EQ(read_file(folder + "/notes.txt"), "mine");
  EXPECT_EQ(read_file(folder + "/0123.kv"), "mine");
}

TEST_F(DiskCacheTest, WhatWasUsedLongestAgoMakesRoomAndTheLimitHolds) {
  GenerateRequest a = ask(random_ids(200, 1)), b = ask(random_ids(200, 2)),
                  c = ask(random_ids(200, 3));
  run(a);
  int64_t page = static_cast<int64_t>(fs::file_size(files()[0]));
  limit = 7 * page;
  run(b);
  EXPECT_EQ(run(a).cached_tokens, 192);  // used again: b is older now
  run(c);
  EXPECT_EQ(files().size(), 7u);
  EXPECT_EQ(run(a).cached_tokens, 192);
  EXPECT_EQ(run(c).cached_tokens, 192);
  EXPECT_EQ(run(b).cached_tokens, 0);
  limit = 2 * page;
  run(ask(random_ids(40, 4)));
  EXPECT_EQ(files().size(), 2u);
  limit = page - 1;
  run(ask(random_ids(70, 4)));
  EXPECT_EQ(files().size(), 0u);
}

TEST_F(DiskCacheTest, ASmallCacheInMemoryTakesWhatFits) {
  // 512 tokens and a page of the cache, shared by two long prompts that are both on the disk.
  GenerateRequest a = ask(random_ids(300, 1)), b = ask(random_ids(300, 2));
  GenerateResult want_a = without(a), want_b = without(b);
  run(a);
  run(b);
  CacheOptions cache{.folder = folder, .folder_bytes = limit};
  std::vector<GenerateResult> got = Engine(*dev, *model, DType::kF32, 512, cache).run({a, b, a});
  EXPECT_EQ(got[0].logp, want_a.logp);
  EXPECT_EQ(got[1].logp, want_b.logp);
  EXPECT_EQ(got[2].logp, want_a.logp);
  EXPECT_EQ(got[0].cached_tokens, 256);
}

TEST_F(DiskCacheTest, AFolderThatCannotBeIsRefusedAndOneThatGoesAwayIsDoneWithout) {
  std::ofstream(folder + "/file") << "x";
  EXPECT_THROW(DiskCache(folder + "/file", 1000, {}), Error);
  EXPECT_THROW(DiskCache(folder + "/file/below", 1000, {}), Error);
  GenerateRequest r = ask(random_ids(200, 1));
  GenerateResult want = without(r);
  CacheOptions cache{.folder = folder + "/inner", .folder_bytes = limit};
  Engine e(*dev, *model, DType::kF32, 512, cache);
  fs::remove_all(folder + "/inner");
  EXPECT_EQ(e.run({r})[0].logp, want.logp);
}

TEST_F(DiskCacheTest, AFolderThatCannotBeReadAnyMoreIsDoneWithout) {
  GenerateRequest r = ask(random_ids(200, 1));
  GenerateResult want = without(r);
  run(r);
  std::string moved = folder + "_moved";
  CacheOptions cache{.folder = folder, .folder_bytes = limit};
  Engine e(*dev, *model, DType::kF32, 512, cache);  // knows the pages
  fs::rename(folder, moved);
  fs::create_symlink(folder, folder);  // a path through it has no end
  GenerateResult got = e.run({r})[0];
  EXPECT_EQ(got.logp, want.logp);
  EXPECT_EQ(got.cached_tokens, 0);
  fs::remove(folder);
  fs::rename(moved, folder);
}

}  // namespace
}  // namespace wels
