// Package replay is the viewer: a web page that lists recordings and plays them, running ones
// too, and the API under it.
//
//	browser --HTTP--> Viewer: fromHere? -> who? -> may they (policy.Evaluate)? -> audited? -> answer
//	                                        |                                        |
//	                              mesh: WhoIs(remote address)               recording/store
//	                              loopback: token
//
// The page is in web/ (TypeScript, built by esbuild into dist/, which is embedded). Without a
// build, dist/ holds nothing and the Viewer says to run make.
//
// # Pages and API
//
//	/                                  the list
//	/r/ID?t=12.5&c=1&speed=2           the player, at a second, on a channel
//	/search?q=WORDS                    search over all recordings
//	/assets/NAME                       parts of the page
//	/api/recordings?q=WORDS&own=1&before=ID
//	                                   {"viewer":{who,node},"recordings":[summary...],"next":ID}
//	                                   "unrecorded" has the sessions that run and are not recorded, of which one may see or end: recording/live
//	/api/recordings/ID?from=N          summary, description, channels, index of frames, from frame N on
//	/api/recordings/ID/frames/N        {"n":N,"keyframes":[...],"events":[...]}
//	/api/recordings/ID/file            the recording itself, .tsr; with ?for=page for a page that reads and verifies it
//	/api/recordings/ID/heads           of the file the description's block and the key blocks, each after its place (8 bytes) and length (4)
//	/api/recordings/ID/raw/N           the block of frame N as it is in the file, sealed where that is
//	/api/recordings/ID/exported?as=gif&channel=1&from=T&until=T
//	                                   {}: the page will make a GIF of these seconds by itself
//	/api/recordings/ID/cast?version=3&channel=1
//	                                   asciicast 3 or 2
//	/api/recordings/ID/transcript?from=N
//	                                   {"commands":[],"marks":[],"lines":[],"total":N}: package recording/transcript
//	/api/recordings/ID/search?q=Q&re=1 {"lines":[...]}: parts of words, or a regular expression (RE2)
//	/api/recordings/ID/text            the transcript as a text file
//	/api/recordings/ID/html            one page that plays without a network and verifies the recording in it: share.go, web/src/tsr.ts;
//	                                   sealed where no key here opens it, or with ?sealed=1
//	/api/recordings/ID/screen          {"cols","rows","lines","paint"}: what the terminal showed last, text and colours
//	/api/recordings/ID/why             {"id","may":[{"what":"watch","yes":true,"because":"..."}...]}: watch, end
//	/api/search?q=WORDS&before=N       {"recordings":[summary with "lines"...],"next":N}: package recording/find
//
//	/api/recordings/ID/live?from=N&raw=1
//	                                   server-sent events, below
//	POST /api/recordings/ID/end        {"reason":WORDS}: End, also of one that is not recorded
//	POST /api/recordings/ID/delete     {"reason":WORDS}: deletes it, where the rule's delete names who asks
//
// GET only but for the last, which a recorder that stands alone refuses (Config.CannotEnd). Times in JSON are seconds since the recording's start, bytes are base64. A refusal
// is {"error":"A sentence."}. The exact fields are the structs in api.go, and web/src/api.ts.
//
// An event is {"t":1.5,"ch":1,"k":"output","d":"..."}; kinds output, stderr, input, close and
// signal carry bytes in d, the others JSON in j. A keyframe {channel,cols,rows,data} is what
// a terminal showed just before the first event of its frame; to show second t a player takes
// the nearest frame at or before t that has one, and applies events from there.
//
// # Following what runs
//
// A stream of /live sends frame N and all after it as soon as they are here, until the session
// is over. Frames are numbered, so who joins late takes the description, begins at
// the last keyframe and follows from the number of frames it knows: no gap, and nothing is shown
// twice. Its events:
//
//	state    the description without frames, duration and size, when it is another than before
//	frame    {"row":{...},"frame":{...}}; its id is N+1, which a browser that comes back says in Last-Event-ID. With raw=1 {"row","raw"},
//	         the block as it is in the file
//	end      the session is over and all of it was sent
//	refused  {"error":"A sentence."}: who watches may not any more
//
// A browser has six connections to a place that speaks HTTP/1.1, for all its tabs together. So a page that nobody looks
// at gives its stream up and goes on when it is looked at again, the pages of one browser tell each other who has a
// stream, and from the fourth on one asks every two seconds what is new (web/src/follow.ts).
//
// Identity and policy are asked again before everything that is sent. Whoever has a stream, and
// for twenty seconds whoever asked for a part of a session that runs in another way, is told to
// the host as watching (recording/live); where the session's rule has showWatchers they are in
// "watchers" of the description. There the list has no picture of what runs, since it asks for
// these by itself, and the page of one asks before it shows anything ("watch_shown" in the description). To know of a
// session is not to watch it: the list, the description, and a search over all recordings tell nobody. While somebody watches, the host cuts frames up to five times a second.
//
// # What is sealed
//
// Of a sealed recording that no key here opens the page asks for an identity (web/src/locked.ts). That stays in the page's
// memory; what is fetched is sealed, and is opened, verified, played, searched and followed there:
//
//	heads ──> keys of epochs (age-encryption)      raw/N, live?raw=1 ──> frame ──> player
//	file?for=page, once, a piece at a time ──> blocks.ts ──> verify.ts ──> is it genuine
//	                                               └──> transcript.ts ──> commands, marks, text, search
//
// There is one decoder of .tsr in the page, which shared pages use as well. Over plain http browsers give a page no
// WebCrypto: hashes, ciphers and signatures are then those of the noble library. What was shown of a frame must be what
// was verified. The recorder knows that somebody took what is sealed, and not whether they opened it or what they looked for.
//
// # Who may see what
//
// Each request is answered for one identity: over the mesh the one that WhoIs gives for the
// remote address, over loopback the one the token stands for. No header says who somebody is.
// policy.Evaluate is asked (AskWatch) for each recording that would be listed, shown or
// downloaded, with the policy of that moment. Refused recordings are not listed, and a direct
// request for one is refused and audited.
//
// Everything shown is audited first; if that fails, it is not shown:
//
//	recording.list       with the filter
//	recording.open       description and index
//	recording.view       with "from", the second at which somebody began to watch; again when they
//	                     jump elsewhere; with "as" sealed where frames were given as they are
//	recording.viewed     with "from" and "until": how far that went, when they jump, stop for two minutes, or the viewer is closed
//	recording.watch      a stream began, with "from"; recording.watched: it ended, with "until"
//	recording.download   with "as", tsr, cast, text, html or gif; with "for" page where the page itself reads the .tsr
//	recording.transcript with "from" and "until", the seconds of the first and the last line given
//	recording.why
//	recording.search     with "q"; of one recording, or of all one may see
//	recording.denied
//	session.end          somebody wants one ended: with the reason, and what the policy says
//
// What goes on (a page that refreshes itself, frame after frame) is one entry in ten minutes. Of one person
// 2,000 entries at once are written and ten a second after that; then it is 429, and nothing shown (pace.go).
//
// # What the browser may be made to do
//
// The remote address is the identity, so a foreign page in a viewer's browser must not be able
// to use it. Host must be on the allow-list (a name rebound to this address is not); Origin,
// where there is one, must be this place; Sec-Fetch-Site, where there is one, must be
// same-origin or none, except for plain navigations to the two pages, so that links work.
// Ending a session and deleting a recording is all that can be changed through this handler: a POST that must be JSON,
// which no form can send and no foreign page without asking first (and nothing here answers
// such a question), same-origin where Sec-Fetch-Site says anything at all. Frames are forbidden, the content policy
// allows only the page's own script and style and no inline ones, and trusted types leave no way
// to turn a string into markup or script.
//
// What was recorded is the work of the person recorded. It reaches the page as JSON, becomes
// text nodes or goes to a terminal renderer without input, links, titles or clipboard.
//
// The token over loopback is compared in constant time, put into a cookie (HttpOnly, SameSite=Strict) and taken out of the
// address by a redirect to /PLACE/, under which all of the above is then. A cookie is sent to every port of 127.0.0.1, and
// other people on the host can listen on one; but only to paths below the one it is for, and PLACE (128 bits of a hash of
// the token) is known to nobody else. Other programs of the same person can read both where the person can.
package replay
