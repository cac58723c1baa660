import java.io.IOException;
import java.net.Authenticator;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.PasswordAuthentication;
import java.net.Proxy;
import java.net.Socket;

/** java Client PROXY-HOST PROXY-PORT HOST PORT [USER PASSWORD]: standard input to the target, its answer to standard output. */
class Client {
    public static void main(String[] args) throws Exception {
        if (args.length == 6) {
            Authenticator.setDefault(new Authenticator() {
                @Override
                protected PasswordAuthentication getPasswordAuthentication() {
                    return new PasswordAuthentication(args[4], args[5].toCharArray());
                }
            });
        }
        Proxy proxy = new Proxy(Proxy.Type.SOCKS, new InetSocketAddress(args[0], Integer.parseInt(args[1])));
        try (Socket socket = new Socket(proxy)) {
            socket.setSoTimeout(20_000);
            socket.connect(target(args[2], Integer.parseInt(args[3])), 20_000);
            Thread up = new Thread(() -> {
                try {
                    System.in.transferTo(socket.getOutputStream());
                    socket.shutdownOutput();
                } catch (IOException error) {
                    System.err.println(error);
                }
            });
            up.start();
            socket.getInputStream().transferTo(System.out);
            System.out.flush();
            up.join(20_000);
        } catch (IOException error) {
            System.err.println(error);
            System.exit(1);
        }
    }

    /** A name is left to the proxy. */
    private static InetSocketAddress target(String host, int port) throws IOException {
        boolean isAddress = host.contains(":") || Character.isDigit(host.charAt(host.length() - 1));
        return isAddress
            ? new InetSocketAddress(InetAddress.getByName(host), port)
            : InetSocketAddress.createUnresolved(host, port);
    }
}
