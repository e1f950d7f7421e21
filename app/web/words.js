// The words of the interface in English and Chinese, and the choice between them.
// `{name}` in a text is replaced by a value; numbers are written the way the language does.

const ENGLISH = {
  skip: "Skip to the results",
  search_box: "Search",
  placeholder: "Describe a picture, or drop one here",
  by_picture: "Search by a picture file",
  remove_picture: "Remove the picture from the search",
  add: "Add pictures",
  target: "What to find",
  pictures: "Pictures",
  texts: "Texts",
  results: "Results",
  picture: "Picture",
  no_caption: "No caption",
  score_title: "Nearness (cosine) of the picture or text to the search; higher is nearer.",
  nearness: "Nearness {score}",
  nearness_note: "Cosine: higher is nearer. Compare within one search, not between searches.",
  newest: "{n} newest pictures",
  newest_one: "1 picture",
  newest_all: "{n} pictures, newest first",
  found_images: "{n} nearest of {searched} pictures · {ms} ms",
  found_texts: "{n} nearest of {searched} texts · {ms} ms",
  nothing_title: "Nothing here yet",
  nothing: "Add pictures or an archive of them with the button above, or drop them anywhere on this page.",
  nothing_command: "From a terminal: sightline ingest FOLDER",
  no_hits_title: "No hits",
  no_hits_images: "There are no pictures to search yet. Add some with the button above.",
  no_hits_texts: "There are no texts to search yet. Texts are added by POST /v1/texts, described at /docs.",
  only_itself: "There is no other picture yet.",
  ask_texts_title: "Find texts",
  ask_texts: "Type some words, or drop a picture to have it named.",
  away: "The server does not answer. Trying again by itself …",
  loading: "The model is still loading; searching begins by itself.",
  busy: "The server is busy. Trying again by itself …",
  refused: "The search was refused: {detail}",
  gone: "The dropped picture is not kept across a reload. Drop it again to search by it.",
  close: "Close",
  previous: "Previous",
  next: "Next",
  like: "More like this",
  name: "Name it",
  names: "Texts that fit",
  original: "Download original",
  tags: "Tags",
  metadata: "Metadata",
  size: "Size",
  format: "Format",
  source: "File name",
  added: "Added",
  id: "Id",
  animated: "animated",
  failed_picture: "This picture could not be read: {detail}",
  waiting_picture: "This picture is being taken in; it cannot be found yet.",
  drop_search: "Drop to search by this picture",
  drop_add: "Drop here to add to the collection",
  uploads: "Uploads",
  cancel: "Cancel",
  one_file: "{name}",
  many_files: "{n} files",
  sending: "Sending · {done} of {total}",
  checking: "Sent · being checked …",
  working: "{done} of {total} taken in",
  rate: " · {rate}/s",
  eta: " · {s} s left",
  added_n: "{n} added",
  duplicates_n: "{n} already there",
  failed_n: "{n} failed",
  cancelled: "Cancelled; nothing was added.",
  not_sent: "The upload broke off; nothing was added.",
  more_failures: "Show more",
  other_language: "中文",
};

const CHINESE = {
  skip: "跳到结果",
  search_box: "搜索",
  placeholder: "描述一张图片，或把图片拖到这里",
  by_picture: "用图片文件搜索",
  remove_picture: "从搜索中移除图片",
  add: "添加图片",
  target: "查找对象",
  pictures: "图片",
  texts: "文字",
  results: "结果",
  picture: "图片",
  no_caption: "无说明",
  score_title: "图片或文字与搜索的相近程度（余弦）；越高越相近。",
  nearness: "相近度 {score}",
  nearness_note: "余弦值：越高越相近。只能在同一次搜索内比较。",
  newest: "最新的 {n} 张图片",
  newest_one: "1 张图片",
  newest_all: "{n} 张图片，最新的在前",
  found_images: "{searched} 张图片中最相近的 {n} 张 · {ms} 毫秒",
  found_texts: "{searched} 条文字中最相近的 {n} 条 · {ms} 毫秒",
  nothing_title: "这里还没有图片",
  nothing: "用上方的按钮添加图片或压缩包，或把它们拖到本页任意位置。",
  nothing_command: "在终端中：sightline ingest 文件夹",
  no_hits_title: "没有结果",
  no_hits_images: "还没有可搜索的图片。请用上方的按钮添加。",
  no_hits_texts: "还没有可搜索的文字。文字通过 POST /v1/texts 添加，说明见 /docs。",
  only_itself: "还没有别的图片。",
  ask_texts_title: "查找文字",
  ask_texts: "输入一些文字，或拖入一张图片来为它命名。",
  away: "服务器没有应答，正在自动重试……",
  loading: "模型仍在加载，完成后会自动开始搜索。",
  busy: "服务器繁忙，正在自动重试……",
  refused: "搜索被拒绝：{detail}",
  gone: "重新加载后不会保留拖入的图片。请再次拖入以搜索。",
  close: "关闭",
  previous: "上一张",
  next: "下一张",
  like: "更多相似图片",
  name: "为它命名",
  names: "相符的文字",
  original: "下载原图",
  tags: "标签",
  metadata: "元数据",
  size: "大小",
  format: "格式",
  source: "文件名",
  added: "添加时间",
  id: "编号",
  animated: "动画",
  failed_picture: "无法读取此图片：{detail}",
  waiting_picture: "此图片正在处理中，暂时还搜索不到。",
  drop_search: "松开即用此图片搜索",
  drop_add: "拖到此处可添加到图库",
  uploads: "上传",
  cancel: "取消",
  one_file: "{name}",
  many_files: "{n} 个文件",
  sending: "正在发送 · {done} / {total}",
  checking: "已发送 · 正在检查……",
  working: "已处理 {done} / {total}",
  rate: " · 每秒 {rate} 张",
  eta: " · 还需 {s} 秒",
  added_n: "已添加 {n}",
  duplicates_n: "已存在 {n}",
  failed_n: "失败 {n}",
  cancelled: "已取消，没有添加任何图片。",
  not_sent: "上传中断，没有添加任何图片。",
  more_failures: "显示更多",
  other_language: "English",
};

const KEPT = "sightline.language";
const LANGUAGES = { en: ENGLISH, zh: CHINESE };
let chosen = kept() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export function words(key, values = {}) {
  return LANGUAGES[chosen][key].replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return typeof value === "number" ? value.toLocaleString(chosen) : String(value ?? whole);
  });
}

export function language() {
  return chosen;
}

export function date(text) {
  return new Date(text).toLocaleString(chosen, { dateStyle: "medium", timeStyle: "short" });
}

export function bytes(n) {
  const step = n < 1e6 ? [n / 1e3, "kB"] : n < 1e9 ? [n / 1e6, "MB"] : [n / 1e9, "GB"];
  return `${step[0].toLocaleString(chosen, { maximumFractionDigits: step[0] < 10 ? 1 : 0 })} ${step[1]}`;
}

export function switchLanguage() {
  chosen = chosen === "en" ? "zh" : "en";
  try {
    localStorage.setItem(KEPT, chosen);
  } catch {
    // a browser that keeps nothing still shows the other language now
  }
}

export function fillWords(root = document) {
  document.documentElement.lang = chosen;
  for (const element of root.querySelectorAll("[data-words]")) element.textContent = words(element.dataset.words);
  for (const element of root.querySelectorAll("[data-placeholder]")) {
    element.placeholder = words(element.dataset.placeholder);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.ariaLabel = words(element.dataset.label);
    if (element.localName === "button") element.title = element.ariaLabel;
  }
}

function kept() {
  try {
    const value = localStorage.getItem(KEPT);
    return value in LANGUAGES ? value : null;
  } catch {
    return null;
  }
}
