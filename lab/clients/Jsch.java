import com.jcraft.jsch.*;
import java.io.*;
import java.nio.file.*;
import java.util.Arrays;

/** JSch, the client inside Eclipse, Ant, Jenkins and many database tools. */
public class Jsch {
    static String env(String k) { return System.getenv(k); }

    static void check(String what, boolean ok, Object got) {
        if (!ok) { System.err.println("not ok " + what + ": " + got); System.exit(1); }
        System.out.println("ok " + what);
    }

    static Session connect() throws Exception {
        Session s = new JSch().getSession(env("USER_"), env("ADDR"), 22);
        s.setPassword("any");
        s.setConfig("StrictHostKeyChecking", "no");
        s.connect(60000);
        return s;
    }

    static byte[][] run(Session s, String command, byte[] in, boolean pty) throws Exception {
        ChannelExec c = (ChannelExec) s.openChannel("exec");
        ByteArrayOutputStream out = new ByteArrayOutputStream(), err = new ByteArrayOutputStream();
        c.setCommand(command);
        c.setPty(pty);
        if (pty) c.setPtySize(111, 33, 0, 0);
        c.setInputStream(new ByteArrayInputStream(in));
        c.setErrStream(err);
        InputStream from = c.getInputStream();
        c.connect();
        from.transferTo(out);
        while (!c.isClosed()) Thread.sleep(10);
        return new byte[][] {out.toByteArray(), err.toByteArray(), {(byte) c.getExitStatus()}};
    }

    public static void main(String[] a) throws Exception {
        Session s = connect();
        check("auth password", s.isConnected(), "");
        byte[][] r = run(s, "echo out; echo err >&2; exit 7", new byte[0], false);
        check("exec, standard error, exit status", new String(r[0]).equals("out\n") && new String(r[1]).equals("err\n") && r[2][0] == 7, Arrays.deepToString(r));
        r = run(s, "sort; echo done", "b\na\n".getBytes(), false);
        check("half-close", new String(r[0]).equals("a\nb\ndone\n"), new String(r[0]));
        byte[] bin = Files.readAllBytes(Path.of(env("BIN")));
        check("binary safety", Arrays.equals(run(s, "cat", bin, false)[0], bin), "");
        r = run(s, "stty size", new byte[0], true);
        check("pty", new String(r[0]).trim().equals("33 111"), new String(r[0]));
        ChannelSftp f = (ChannelSftp) s.openChannel("sftp");
        f.connect();
        f.put(env("BIG"), "by-jsch");
        f.get("by-jsch", env("WORK") + "/back");
        check("sftp both ways", Files.mismatch(Path.of(env("BIG")), Path.of(env("WORK"), "back")) == -1, "");
        f.mkdir("jsch-d");
        f.rename("by-jsch", "jsch-d/x");
        f.hardlink("jsch-d/x", "jsch-d/y");
        f.chmod(0600, "jsch-d/x");
        check("sftp operations", f.stat("jsch-d/x").getPermissionsString().equals("-rw-------") && f.ls("jsch-d").size() == 4, f.ls("jsch-d"));
        s.disconnect();
    }
}
